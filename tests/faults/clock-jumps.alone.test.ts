/** The time of day jumps by hours while a job runs, forth and back, for the orchestrator and its nodes: leases and time limits do not go by it. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { withTemporaryFolder } from '../support/paths.js';
import { preloadProblem, ShiftedClock } from '../support/preload.js';
import { writeTinyJob } from '../support/tiny-job.js';

const HOUR_S = 3600;
const BLOCKS = 4;
/** After each block. */
const SHIFTS_S = [5 * HOUR_S, -7 * HOUR_S, 30 * 24 * HOUR_S, 0];
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;
const testWithPreload = preloadProblem === undefined ? test : test.skip;

testWithPreload(`forth and back after every block${suffix}`, () =>
  withTemporaryFolder(async (folder) => {
    const clock = new ShiftedClock(folder);
    const specFor = await writeTinyJob(folder, { allocation: Allocation.UNIFORM }, BLOCKS);
    const output = join(folder, 'pruned');
    await using cluster = await Cluster.start({ nodes: 2, environment: clock.environment });
    await prune(cluster.client, 'reference', specFor(join(folder, 'reference')));
    const shifts = [...SHIFTS_S];
    const report = await prune(cluster.client, 'job', specFor(output), ({ event }) => {
      if (event?.$case === 'layerFinished') clock.shift(shifts.shift() ?? 0);
    });
    expect(shifts).toEqual([]);
    expect(report.nodes.map(({ lost }) => lost)).toEqual(['', '']);
    expect(await hashOutput(output)).toEqual(await hashOutput(join(folder, 'reference')));
  }),
);

testWithPreload(`back by hours, and then the only orchestrator is killed and started again with its folder${suffix}`, () =>
  withTemporaryFolder(async (folder) => {
    const clock = new ShiftedClock(folder);
    const specFor = await writeTinyJob(folder, { allocation: Allocation.UNIFORM }, BLOCKS);
    const output = join(folder, 'pruned');
    await using cluster = await Cluster.start({ nodes: 1, state: join(folder, 'state'), environment: clock.environment });
    await cluster.client.createJob({ jobId: 'job', spec: specFor(output) });
    for await (const { event } of cluster.client.watchJob('job')) if (event?.$case === 'layerFinished') break;
    await cluster.orchestrator.signal('SIGKILL');
    clock.shift(-5 * HOUR_S);
    const { client } = await cluster.addReplica();
    expect(await client.waitForJob('job')).toMatchObject({ state: JobState.SUCCEEDED });
    await prune(client, 'reference', specFor(join(folder, 'reference')));
    expect(await hashOutput(output)).toEqual(await hashOutput(join(folder, 'reference')));
  }),
);
