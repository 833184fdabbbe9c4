/**
 * Disks that are full or turn read-only at any write: an error that names the file and what to do, nothing half-written under the final name,
 * and the same bytes once the disk is mended and the job is resumed.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, ProjectionSelection, type Job, type JobSpec } from '@secateur/proto/job';
import { fromStatusProto } from '@secateur/rpc';
import { Cluster } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { FailingDisk, preloadProblem, type DiskError } from '../support/preload.js';
import { writeTinyJob } from '../support/tiny-job.js';

const describeWithPreload = preloadProblem === undefined ? describe : describe.skip;
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;

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
    specFor = await writeTinyJob(data.path, { allocation: Allocation.UNIFORM, selection });
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

  test.each(Object.entries(EXPECTED))('%s', async (name, expected) => {
    const error = name as DiskError;
    const output = join(outputs, 'pruned');
    disk.mend(error);
    disk.operations();
    await prune(cluster.client, `reference-${error}`, specFor(output));
    const reference = await hashOutput(output);
    const operations = disk.operations();
    // Two projections of two blocks in three files, beside everything else.
    expect(operations.length).toBeGreaterThan(50);
    const published = operations.findIndex((operation) => operation.startsWith('rename') && operation.endsWith('pruned.partial'));

    for (const index of operationsToFail(operations, error)) {
      const jobId = `${error.toLowerCase()}-${index}`;
      await rm(output, { recursive: true });
      disk.failFrom(index, error);
      await cluster.client.createJob({ jobId, spec: specFor(output) });
      const job = await cluster.client.waitForJob(jobId);
      const left = await readdir(outputs);
      disk.mend(error);
      expect({ operation: operations[index], ...problemOf(job) }).toEqual({
        operation: operations[index],
        reason: expected.reason,
        message: expect.stringMatching(expected.message),
        namesPath: true,
      });
      // Whole, or not there under that name.
      expect(left.includes(basename(output))).toBe(index > published);
      await cluster.client.resumeJob(jobId);
      const resumed = await cluster.client.waitForJob(jobId);
      expect({ operation: operations[index], state: resumed.state, error: resumed.error?.message }).toEqual({
        operation: operations[index],
        state: JobState.SUCCEEDED,
        error: undefined,
      });
      expect(await readdir(outputs)).toEqual([basename(output)]);
      expect(await hashOutput(output)).toEqual(reference);
    }
    await rm(output, { recursive: true });
  });

  function problemOf({ state, error }: Job): object {
    expect(state).toBe(JobState.FAILED);
    const { reason, message } = fromStatusProto(error!);
    return { reason, message, namesPath: message.includes(outputs) };
  }
});

/**
 * The first and the last of each kind on each file: between them the same happens again and again. On a read-only disk the first of each kind,
 * and those that remove files, which a full one allows.
 */
function operationsToFail(operations: readonly string[], error: DiskError): number[] {
  // Masks and rows are written side by side in the same way.
  const kinds = operations.map((operation) => operation.replace('row_sparsities', 'masks'));
  const names = error === 'ENOSPC' ? kinds : kinds.map((kind) => (kind.startsWith('unlink') ? kind : kind.split(' ')[0]!));
  return operations.flatMap((_, index) =>
    names.indexOf(names[index]!) === index || (error === 'ENOSPC' && names.lastIndexOf(names[index]!) === index) ? [index] : [],
  );
}
