/**
 * Disks that are full or turn read-only at any write: an error that names the file and what to do, nothing half-written under the final name,
 * and the same bytes once the disk is mended and the job is resumed. As many of the writes fail as there is time for, drawn at random
 * (SECATEUR_TEST_SEED draws others), and all of them with SECATEUR_TESTS=all.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, ProjectionSelection, type Job, type JobEvent, type JobSpec } from '@secateur/proto/job';
import { fromStatusProto } from '@secateur/rpc';
import { Cluster } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { FailingDisk, preloadProblem, type DiskError } from '../support/preload.js';
import { EVERYTHING, shuffled } from '../support/scope.js';
import { recordedSpans } from '../support/spans.js';
import { writeTinyJob } from '../support/tiny-job.js';

const describeWithPreload = preloadProblem === undefined ? describe : describe.skip;
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;

/** For which new failures are begun with each kind of error; a job that fails and is resumed takes about one second. */
const TIME_MS = EVERYTHING ? Infinity : 30_000;
const LONGEST_MS = EVERYTHING ? 1_800_000 : TIME_MS + 90_000;

interface Expected {
  readonly reason: string;
  readonly message: RegExp;
}
const EXPECTED: Readonly<Record<DiskError, Expected>> = {
  ENOSPC: { reason: 'RESOURCE_EXHAUSTED', message: /no space is left on the device \(ENOSPC\)\. Free some space/ },
  EROFS: { reason: 'FAILED_PRECONDITION', message: /the file system is read-only \(EROFS\)\. Make it writable/ },
};

describeWithPreload(`a disk that fails at any write of a job${suffix}`, () => {
  let tools: TemporaryFolder;
  let data: TemporaryFolder;
  let disk: FailingDisk;
  let outputs: string;
  let cluster: Cluster;
  let specFor: (output: string) => JobSpec;

  beforeAll(async () => {
    tools = await temporaryFolder();
    data = await temporaryFolder();
    // Few projections, pruned in little time: what is written counts.
    const selection = ProjectionSelection.fromPartial({ only: ['q_proj', 'down_proj'], skipLayers: [0] });
    specFor = await writeTinyJob(data.path, { allocation: Allocation.UNIFORM, selection, snapshotEvery: 1 });
    outputs = join(data.path, 'outputs');
    await mkdir(outputs);
    disk = new FailingDisk(tools.path, outputs);
    cluster = await Cluster.start({ nodes: 1, environment: disk.environment });
  });
  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
    await data[Symbol.asyncDispose]();
    await tools[Symbol.asyncDispose]();
  });

  test.each(Object.entries(EXPECTED))(
    '%s',
    async (name, expected) => {
      const error = name as DiskError;
      const output = join(outputs, 'pruned');
      disk.mend(error);
      disk.operations();
      await prune(cluster.client, `reference-${error}`, specFor(output));
      const reference = await hashOutput(output);
      const operations = disk.operations();
      // Two projections of two blocks in three files, and hidden states of two, beside everything else.
      expect(operations.length).toBeGreaterThan(60);
      expect(
        operations.filter((operation) => operation.startsWith('write') && operation.includes('/hidden-states/')).length,
      ).toBeGreaterThan(3);
      const published = operations.findIndex((operation) => operation.startsWith('rename') && operation.endsWith('pruned.partial'));

      const failures = shuffled(operations.flatMap((_, index) => [true, false].map((stays) => ({ index, stays }))));
      // There are few of these, and nothing after them would tell.
      const isLoneRemoval = ({ index, stays }: { index: number; stays: boolean }): boolean =>
        !stays && operations[index]!.startsWith('unlink');
      failures.sort((one, other) => Number(isLoneRemoval(other)) - Number(isLoneRemoval(one)));
      const until = performance.now() + TIME_MS;
      let tried = 0;
      for (const { index, stays } of failures) {
        if (performance.now() > until) break;
        ++tried;
        const failure = { operation: operations[index]!, stays };
        const jobId = `${error.toLowerCase()}-${index}-${stays}`;
        await rm(output, { recursive: true });
        if (stays) disk.failFrom(index, error);
        else disk.failOnly(index, error);
        await cluster.client.createJob({ jobId, spec: specFor(output) });
        const job = await cluster.client.waitForJob(jobId);
        const left = await readdir(outputs);
        disk.mend(error);
        // Hidden states that cannot be kept are done without, unless nothing else can be written either; what is left of taking the lock goes with it.
        const isMinor = !stays && /\/hidden-states|^unlink .*\/owner\.json\./.test(failure.operation);
        if (!isMinor || job.state !== JobState.SUCCEEDED) {
          expect({ ...failure, ...problemOf(job) }).toEqual({
            ...failure,
            state: JobState.FAILED,
            reason: expected.reason,
            message: expect.stringMatching(expected.message),
            namesPath: true,
          });
          // Whole, or not there under that name.
          expect({ ...failure, whole: left.includes(basename(output)) }).toEqual({ ...failure, whole: index > published });
          await cluster.client.resumeJob(jobId);
          const resumed = await cluster.client.waitForJob(jobId);
          expect({ ...failure, state: resumed.state, error: resumed.error?.message }).toEqual({
            ...failure,
            state: JobState.SUCCEEDED,
            error: undefined,
          });
        }
        expect({ ...failure, left: await readdir(outputs) }).toEqual({ ...failure, left: [basename(output)] });
        expect({ ...failure, files: await hashOutput(output) }).toEqual({ ...failure, files: reference });
      }
      process.stderr.write(`${error}: ${tried} of ${failures.length} failures of ${operations.length} operations\n`);
      await rm(output, { recursive: true });
    },
    LONGEST_MS,
  );

  test('a job that found no space can be deleted, which makes some', async () => {
    disk.operations();
    disk.failFrom(40, 'ENOSPC');
    await cluster.client.createJob({ jobId: 'deleted', spec: specFor(join(outputs, 'deleted')) });
    expect((await cluster.client.waitForJob('deleted')).state).toBe(JobState.FAILED);
    expect(await readdir(outputs)).toEqual(['deleted.partial']);
    await cluster.client.deleteJob('deleted');
    disk.mend('ENOSPC');
    expect(await readdir(outputs)).toEqual([]);
  });

  function problemOf({ state, error }: Job): object {
    if (error === undefined) return { state };
    const { reason, message } = fromStatusProto(error);
    return { state, reason, message, namesPath: message.includes(outputs) };
  }
});

describeWithPreload(`a disk that takes everything but hidden states${suffix}`, () => {
  let tools: TemporaryFolder;
  let data: TemporaryFolder;
  let disk: FailingDisk;
  let output: string;
  let cluster: Cluster;
  let specFor: (output: string) => JobSpec;
  let reference: Readonly<Record<string, string>>;

  beforeAll(async () => {
    tools = await temporaryFolder();
    data = await temporaryFolder();
    const selection = ProjectionSelection.fromPartial({ only: ['q_proj', 'down_proj'], skipLayers: [0] });
    specFor = await writeTinyJob(data.path, { allocation: Allocation.UNIFORM, selection, snapshotEvery: 1 }, 4);
    output = join(data.path, 'pruned');
    const kept = join(`${output}.partial`, 'hidden-states');
    // It takes the real path of a folder.
    await mkdir(kept, { recursive: true });
    disk = new FailingDisk(tools.path, kept);
    await rm(`${output}.partial`, { recursive: true });
    cluster = await Cluster.start({ nodes: 1, environment: disk.environment });
    disk.mend();
    await prune(cluster.client, 'reference', specFor(output));
    reference = await hashOutput(output);
  });
  beforeEach(async () => {
    disk.mend();
    disk.operations();
    await rm(output, { recursive: true, force: true });
  });
  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
    await data[Symbol.asyncDispose]();
    await tools[Symbol.asyncDispose]();
  });

  /** Blocks whose input could not be kept, as the job tells. */
  const untold = (events: readonly JobEvent[]): number[] =>
    events.flatMap(({ event }) => (event?.$case === 'snapshotFailed' ? [event.value.layer] : []));

  test('the job goes on without them, says so, and ends with the same bytes', async () => {
    await prune(cluster.client, 'counted', specFor(output));
    const operations = disk.operations();
    // Folder, and three files that are opened, written and synced.
    const kinds = operations.map((operation) => operation.split(' ')[0]!);
    expect(new Set(kinds)).toEqual(new Set(['mkdir', 'open', 'write', 'sync']));
    const failures = [...new Set(kinds)].flatMap((kind) => [kinds.indexOf(kind), kinds.lastIndexOf(kind)]);
    for (const index of new Set(failures)) {
      await rm(output, { recursive: true });
      disk.failFrom(index, 'ENOSPC');
      const events: JobEvent[] = [];
      await prune(cluster.client, `without-${index}`, specFor(output), (event) => events.push(event));
      disk.mend();
      const first = 1 + operations.slice(0, index).filter((operation) => operation.startsWith('sync')).length;
      expect({ index, without: untold(events) }).toEqual({ index, without: [1, 2, 3].filter((layer) => layer >= first) });
      const told = events.find(({ event }) => event?.$case === 'snapshotFailed')?.event;
      expect(told).toMatchObject({
        value: { reason: expect.stringMatching(/\.partial\/hidden-states.*no space is left on the device \(ENOSPC\)\. Free some space/) },
      });
      expect(await hashOutput(output)).toEqual(reference);
    }
  });

  test('a job that goes on begins at the last that were kept whole', async () => {
    const { client } = cluster;
    await prune(client, 'whole', specFor(output));
    const second = disk.operations().findIndex((operation) => operation.startsWith('write') && operation.endsWith('/2'));
    await rm(output, { recursive: true });
    disk.failFrom(second, 'ENOSPC');
    const events: JobEvent[] = [];
    let cancelled: Promise<unknown> | undefined;
    const stopped = prune(client, 'stopped', { ...specFor(output), recordTrace: true }, (event) => {
      events.push(event);
      if (event.event?.$case === 'snapshotFailed' && event.event.value.layer === 2) cancelled ??= client.cancelJob('stopped');
    });
    await expect(stopped).rejects.toThrow('ended in state');
    await cancelled;
    disk.mend();
    expect(untold(events)[0]).toBe(2);
    expect(await readdir(join(`${output}.partial`, 'hidden-states'))).toEqual(['1']);
    await client.resumeJob('stopped');
    expect((await client.waitForJob('stopped')).state).toBe(JobState.SUCCEEDED);
    const spans = await recordedSpans(client, 'stopped');
    expect(spans.filter(({ name }) => name === 'secateur.restore')).toHaveLength(1);
    // The first attempt has embedded.
    expect(spans.filter(({ name }) => name === 'secateur.embed')).toHaveLength(1);
    expect(await hashOutput(output)).toEqual(reference);
  });

  test('what cannot be removed is no part of an output: the job fails at its end and can be resumed', async () => {
    const { client } = cluster;
    disk.mend('EROFS');
    await prune(client, 'removed', specFor(output));
    const second = disk.operations().findIndex((operation) => operation.startsWith('write') && operation.endsWith('/2'));
    await rm(output, { recursive: true });
    disk.failFrom(second, 'EROFS');
    await client.createJob({ jobId: 'stuck', spec: specFor(output) });
    const events: JobEvent[] = [];
    for await (const event of client.watchJob('stuck')) events.push(event);
    const { state, error } = await client.getJob('stuck');
    disk.mend('EROFS');
    expect(untold(events)).toEqual([2, 3]);
    expect(state).toBe(JobState.FAILED);
    expect(fromStatusProto(error!)).toMatchObject({
      reason: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/^Cannot remove .*hidden-states: the file system is read-only \(EROFS\)\. Make it writable/),
    });
    await client.resumeJob('stuck');
    expect((await client.waitForJob('stuck')).state).toBe(JobState.SUCCEEDED);
    expect(await hashOutput(output)).toEqual(reference);
  });
});
