/**
 * The disk of the embedded job database fails while a job runs: the orchestrator says why it ends, or waits, and once there is room and it runs the job
 * ends with the same bytes. Any of the writes fails, as many as there is time for, drawn at random.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { eventually, prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { withTemporaryFolder } from '../support/paths.js';
import { FailingDisk, preloadProblem, type DiskError } from '../support/preload.js';
import { EVERYTHING, shuffled } from '../support/scope.js';
import { writeTinyJob } from '../support/tiny-job.js';

const LEASE_S = 3;
/** Within the first transactions of a job. */
const OPERATION = 12;
/** For which new failures are begun; each takes about as long as a lease and a start. */
const TIME_MS = EVERYTHING ? Infinity : 10_000;
const LONGEST_MS = EVERYTHING ? 3_600_000 : TIME_MS + 120_000;
/** A busy machine takes its time for another attempt. */
const LONGEST_WAIT_MS = 90_000;
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;

interface Setting {
  readonly folder: string;
  /** The folder of the job database. */
  readonly state: string;
  readonly disk: FailingDisk;
  readonly cluster: Cluster;
  readonly specFor: Awaited<ReturnType<typeof writeTinyJob>>;
}

/** An orchestrator, with a node, that keeps its jobs in a folder whose disk can be made to fail. */
function withFailingState(work: (setting: Setting) => Promise<void>): Promise<void> {
  return withTemporaryFolder((tools) =>
    withTemporaryFolder(async (folder) => {
      const specFor = await writeTinyJob(folder, { allocation: Allocation.UNIFORM });
      const state = join(folder, 'state');
      await mkdir(state);
      const disk = new FailingDisk(tools, state);
      const { environment } = disk;
      await using cluster = await Cluster.start({ nodes: 1, state, environment, serve: ['--lease', String(LEASE_S)] });
      await work({ folder, state, disk, cluster, specFor });
    }),
  );
}

(preloadProblem === undefined ? test : test.skip)(`a state folder that cannot be written for a while${suffix}`, () =>
  withFailingState(async ({ folder, state, disk, cluster, specFor }) => {
    await prune(cluster.client, 'reference', specFor(join(folder, 'reference')));
    const reference = await hashOutput(join(folder, 'reference'));
    const jobId = 'job';
    const output = join(folder, 'pruned');
    await cluster.client.createJob({ jobId, spec: specFor(output) });
    for await (const { event } of cluster.client.watchJob(jobId)) if (event?.$case === 'attemptStarted') break;
    disk.failFrom(OPERATION, 'ENOSPC');
    // Its database could only go round for ever.
    await eventually(() => cluster.orchestrator.exitCode !== null, 'the orchestrator ends');
    expect(cluster.orchestrator.exitCode).toBe(1);
    expect(cluster.orchestrator.output).toContain(
      `Cannot write ${state}/database: no space is left on the device (ENOSPC). Free some space`,
    );

    disk.failFrom(0, 'EROFS');
    await expect(cluster.addReplica()).rejects.toThrow(/Cannot \w+ .*state.*: the file system is read-only \(EROFS\)\. Make it writable/);

    disk.mend();
    const { client } = await cluster.addReplica();
    expect(await client.waitForJob(jobId)).toMatchObject({ state: JobState.SUCCEEDED });
    expect(await hashOutput(output)).toEqual(reference);
  }),
);

(preloadProblem === undefined ? test : test.skip)(
  `a state folder that fails at any write${suffix}`,
  () =>
    withFailingState(async ({ folder, state, disk, cluster, specFor }) => {
      let { client, process: orchestrator } = cluster.replicas[0]!;
      disk.operations();
      await prune(client, 'reference', specFor(join(folder, 'reference')));
      const operations = disk.operations();
      expect(operations.length).toBeGreaterThan(OPERATION);
      const reference = await hashOutput(join(folder, 'reference'));

      const errors: readonly DiskError[] = ['ENOSPC', 'EROFS'];
      const failures = shuffled(operations.flatMap((_, index) => errors.map((error) => ({ index, error }))));
      const until = performance.now() + TIME_MS;
      const ends = { tried: 0, ended: 0 };
      for (const { index, error } of failures) {
        if (performance.now() > until) break;
        const jobId = `job-${ends.tried++}`;
        const output = join(folder, jobId);
        await client.createJob({ jobId, spec: specFor(output) });
        disk.failFrom(index, error);
        // It ends, waits, or comes to an end before so many writes.
        const waitedUntil = performance.now() + LEASE_S * 1_000;
        while (orchestrator.exitCode === null && performance.now() < waitedUntil) {
          const job = await client.getJob(jobId).catch(() => undefined);
          if (job?.state === JobState.SUCCEEDED) break;
          await sleep(50);
        }
        disk.mend();
        // What failed at the last moment ends it now.
        const ended = (): boolean => orchestrator.exitCode !== null;
        const succeeded = async (): Promise<boolean> => (await client.getJob(jobId).catch(() => undefined))?.state === JobState.SUCCEEDED;
        const what = `${jobId} ends, or the orchestrator, after ${error} at ${index}`;
        await eventually(async () => ended() || (await succeeded()), what, LONGEST_WAIT_MS).catch(async (cause: unknown) => {
          const job = await client.getJob(jobId).catch(String);
          throw new Error(`${String(cause)}: ${JSON.stringify(job)}\n${orchestrator.output}`, { cause });
        });
        if (ended()) {
          ++ends.ended;
          expect({ index, error, code: orchestrator.exitCode }).toEqual({ index, error, code: 1 });
          expect(orchestrator.output).toMatch(
            new RegExp(`Cannot write ${state}/database: .*\\(${error}\\)\\. (Free some space|Make it writable)`),
          );
          ({ client, process: orchestrator } = await cluster.addReplica());
        }
        expect({ index, error, state: (await client.waitForJob(jobId)).state }).toEqual({ index, error, state: JobState.SUCCEEDED });
        expect(await hashOutput(output)).toEqual(reference);
      }
      process.stderr.write(
        `${ends.tried} of ${failures.length} failures of ${operations.length} operations, ${ends.ended} times the orchestrator ended\n`,
      );
    }),
  LONGEST_MS,
);
