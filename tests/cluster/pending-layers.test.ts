/** What is left to do of all jobs, by which kernel nodes are scaled, is told alike by every orchestrator of one database. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
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
    const readMetrics = () =>
      Promise.all(cluster.replicas.map(async ({ httpAddress }) => (await fetch(`http://${httpAddress}/metrics`)).text()));
    const pending = async () => (await readMetrics()).map((text) => Number(/^secateur_layers_pending (\d+)$/m.exec(text)?.[1]));
    expect(await pending()).toEqual([0, 0]);

    const jobs = ['one', 'two', 'waits'];
    // A machine that is slow may run into the limit for waiting.
    const specOf = (jobId: string) => ({ ...pruneSpec('books-llama', join(folder, jobId)), maximumAttempts: 10 });
    for (const jobId of jobs) await client.createJob({ jobId, spec: specOf(jobId) });
    const read = () => Promise.all(jobs.map((id) => client.getJob(id)));
    const planned = async () => (await read()).filter(({ layers }) => layers === LAYERS);
    await eventually(async () => (await planned()).length === 2, 'each orchestrator has planned a job');
    expect(await pending()).toEqual([2 * LAYERS + EXPECTED_LAYERS, 2 * LAYERS + EXPECTED_LAYERS]);

    const waiting = (await read()).find(({ layers }) => layers === 0)!;
    await client.pauseJob(waiting.id);
    expect(await pending()).toEqual([2 * LAYERS, 2 * LAYERS]);
    await client.cancelJob((await planned())[0]!.id);
    await eventually(async () => (await pending()).join() === [LAYERS, LAYERS].join(), 'the blocks of the job that was cancelled are gone');

    // Alerts tell orchestrators without a database from none at all.
    await database.end('SIGKILL');
    const lacksJobs = (text: string): boolean => !/^secateur_(?:jobs|layers_pending)\b/m.test(text);
    await eventually(async () => (await readMetrics()).every(lacksJobs), 'nothing is told of jobs that nobody can read');
    for (const text of await readMetrics()) expect(text).toMatch(/^secateur_nodes\{secateur_node_healthy="true"\} 0$/m);
    await database.run();
  }));
