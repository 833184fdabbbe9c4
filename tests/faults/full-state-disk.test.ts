/** The disk of the embedded job database fails while a job runs: the orchestrator says why it ends, and once it is started again the job ends with the same bytes. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { eventually, prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { withTemporaryFolder } from '../support/paths.js';
import { FailingDisk, preloadProblem } from '../support/preload.js';
import { writeTinyJob } from '../support/tiny-job.js';

const LEASE_S = 3;
/** Within the first transactions of a job. */
const OPERATION = 12;
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;

(preloadProblem === undefined ? test : test.skip)(`a state folder that cannot be written for a while${suffix}`, () =>
  withTemporaryFolder((tools) =>
    withTemporaryFolder(async (folder) => {
      const specFor = await writeTinyJob(folder, { allocation: Allocation.UNIFORM });
      const state = join(folder, 'state');
      await mkdir(state);
      const disk = new FailingDisk(tools, state);
      await using cluster = await Cluster.start({
        nodes: 1,
        state,
        environment: disk.environment,
        serve: ['--lease', String(LEASE_S)],
      });
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
  ),
);
