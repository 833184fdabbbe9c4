/** What is left to do of all jobs, by which kernel nodes are scaled, is told alike by every orchestrator of one database. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { JobState } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { eventually, pruneSpec } from '../support/jobs.js';
import { withTemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';

/** Blocks of the model, and those that a job which was never planned is taken to have. */
const LAYERS = 4;
const EXPECTED_LAYERS = 32;

test('jobs of one orchestrator, of another and of none are told of by both', () =>
  withTemporaryFolder(async (folder) => {
    await using database = await PostgresServer.start();
    // Without a node that answers, jobs are planned and then wait.
    await using cluster = await Cluster.start({ nodes: 0, unreachable: 1, orchestrators: 2, http: true, state: database.url });
    const { client } = cluster;
    const pending = () =>
      Promise.all(
        cluster.replicas.map(async ({ httpAddress }) => {
          const metrics = await (await fetch(`http://${httpAddress}/metrics`)).text();
          return Number(/^secateur_layers_pending (\d+)$/m.exec(metrics)?.[1]);
        }),
      );
    expect(await pending()).toEqual([0, 0]);

    const jobs = ['one', 'two', 'waits'];
    for (const jobId of jobs) await client.createJob({ jobId, spec: pruneSpec('books-llama', join(folder, jobId)) });
    const read = () => Promise.all(jobs.map((id) => client.getJob(id)));
    const planned = async () => (await read()).filter(({ layers }) => layers === LAYERS);
    await eventually(async () => (await planned()).length === 2, 'each orchestrator has planned a job');
    expect(await pending()).toEqual([2 * LAYERS + EXPECTED_LAYERS, 2 * LAYERS + EXPECTED_LAYERS]);

    const waiting = (await read()).find(({ state }) => state === JobState.QUEUED)!;
    await client.pauseJob(waiting.id);
    expect(await pending()).toEqual([2 * LAYERS, 2 * LAYERS]);
    await client.cancelJob((await planned())[0]!.id);
    await eventually(async () => (await pending()).join() === [LAYERS, LAYERS].join(), 'the blocks of the job that was cancelled are gone');
  }));
