/** Jobs outlive the orchestrators that run them and the database they are kept in; the result is the same bytes, whoever is lost when. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { JobState, type Job, type JobEvent } from '@secateur/proto/job';
import { Cluster, type ClusterOptions, type Replica } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { withTemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';

const MODEL = 'books-llama';
const LEASE_S = 3;
const SERVE = ['--lease', String(LEASE_S)];

let database: PostgresServer;
let reference: Record<string, string>;
beforeAll(async () => {
  database = await PostgresServer.start();
  reference = await withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 1 });
    const output = join(folder, 'pruned');
    await prune(cluster.client, 'reference', pruneSpec(MODEL, output));
    return await hashOutput(output);
  });
});
afterAll(() => database[Symbol.asyncDispose]());

let jobs = 0;
interface Running {
  readonly cluster: Cluster;
  readonly id: string;
  readonly output: string;
  /** Who runs the job, and who does not. */
  readonly runner: Replica;
  readonly other: Replica;
}

/** Runs a job on two orchestrators that share the database, lets something happen once the second block has begun, and compares the bytes. */
async function withRunningJob(options: Partial<ClusterOptions>, happen: (running: Running) => Promise<void>): Promise<readonly JobEvent[]> {
  return withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 2, orchestrators: 2, state: database.url, serve: SERVE, ...options });
    const id = `durable-${++jobs}`;
    const output = join(folder, 'pruned');
    const [first, second] = [cluster.replicas[0]!, cluster.replicas[1] ?? cluster.replicas[0]!];
    await second.client.createJob({ jobId: id, spec: pruneSpec(MODEL, output) });
    const begun = (await eventOf(second, id, ({ event }) => event?.$case === 'attemptStarted')).event;
    const orchestrator = begun?.$case === 'attemptStarted' ? begun.value.orchestrator : '';
    const runner = orchestrator.includes(`-${first.process.pid}-`) ? first : second;
    const other = runner === first ? second : first;
    await eventOf(other, id, ({ event }) => event?.$case === 'progress' && event.value.layer === 1);
    await happen({ cluster, id, output, runner, other });
    const survivor = cluster.replicas.at(-1) === runner ? other : cluster.replicas.at(-1)!;
    const job = await endOf(survivor, id);
    expect(job).toMatchObject({ state: JobState.SUCCEEDED, finishedLayers: job.layers });
    expect(await hashOutput(output)).toEqual(reference);
    const events: JobEvent[] = [];
    for await (const event of survivor.client.watchJob(id)) events.push(event);
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1));
    expect(finished(events)).toEqual(Array.from({ length: job.layers }, (_, layer) => layer));
    return events;
  });
}

async function eventOf({ client }: Replica, id: string, wanted: (event: JobEvent) => boolean): Promise<JobEvent> {
  for await (const event of client.watchJob(id)) if (wanted(event)) return event;
  throw new Error(`Job ${id} ended before.`);
}

function endOf({ client }: Replica, id: string): Promise<Job> {
  return client.waitForJob(id);
}

const attempts = (events: readonly JobEvent[]) =>
  events.flatMap(({ event }) => (event?.$case === 'attemptStarted' ? [event.value.afterLoss] : []));
const finished = (events: readonly JobEvent[]) =>
  events.flatMap(({ event }) => (event?.$case === 'layerFinished' ? [event.value.layer] : []));

describe('a job goes on, with no layer done twice, when', () => {
  test('its orchestrator is killed', async () => {
    const events = await withRunningJob({}, ({ runner }) => runner.process.signal('SIGKILL'));
    expect(attempts(events)).toEqual([false, true]);
  });

  test('its orchestrator is told to stop', async () => {
    const events = await withRunningJob({}, ({ runner }) => runner.process.signal('SIGTERM'));
    expect(attempts(events)).toEqual([false, false]);
  });

  test('its orchestrator is frozen for longer than its lease, and wakes up while another one runs the job', async () => {
    const events = await withRunningJob({}, async ({ runner, other, id }) => {
      process.kill(runner.process.pid, 'SIGSTOP');
      try {
        await eventually(async () => (await other.client.getJob(id)).attempt === 2, 'the other orchestrator has taken over');
      } finally {
        process.kill(runner.process.pid, 'SIGCONT');
      }
    });
    expect(attempts(events)).toEqual([false, true]);
  });

  test('its orchestrator is frozen for a moment', async () => {
    const events = await withRunningJob({}, async ({ runner }) => {
      process.kill(runner.process.pid, 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 500));
      process.kill(runner.process.pid, 'SIGCONT');
    });
    expect(attempts(events)).toEqual([false]);
  });

  test.each([
    ['for a moment', 200],
    ['for longer than the lease', (LEASE_S + 1) * 1000],
  ])('the database is gone %s', async (_, milliseconds) => {
    await withRunningJob({}, async () => {
      await database.end('SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
      await database.run();
    });
  });

  test('both orchestrators and the database are killed in turn', async () => {
    const events = await withRunningJob({}, async ({ cluster, id, runner, other }) => {
      await runner.process.signal('SIGKILL');
      await eventually(async () => (await other.client.getJob(id)).attempt === 2, 'the other orchestrator has taken over');
      await other.process.signal('SIGKILL');
      await database.end('SIGKILL');
      await database.run();
      await cluster.addReplica();
    });
    expect(attempts(events)).toEqual([false, true, true]);
  });

  test('the only orchestrator is killed and started again with the same folder', () =>
    withTemporaryFolder(async (state) => {
      const events = await withRunningJob({ state, orchestrators: 1, nodes: 1 }, async ({ cluster, runner }) => {
        await runner.process.signal('SIGKILL');
        await cluster.addReplica();
      });
      expect(attempts(events)).toEqual([false, true]);
    }));
});

test('a job is paused, resumed, cancelled and deleted through an orchestrator that does not run it', () =>
  withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 1, orchestrators: 2, state: database.url, serve: SERVE });
    const [first, second] = cluster.replicas.map(({ client }) => client) as [Replica['client'], Replica['client']];
    const output = join(folder, 'pruned');
    const id = `asked-${++jobs}`;
    await first.createJob({ jobId: id, spec: pruneSpec(MODEL, output) });
    const layers = async (): Promise<number> => (await first.getJob(id)).finishedLayers;
    await eventually(async () => (await layers()) >= 1, 'a block is finished');
    for (const client of [first, second]) {
      const asked = performance.now();
      expect((await client.pauseJob(id)).state).toBe(JobState.PAUSED);
      expect(performance.now() - asked).toBeLessThan(5_000);
      expect((await client.pauseJob(id)).state).toBe(JobState.PAUSED);
      await expect(client.deleteJob(id)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
      expect((await client.resumeJob(id)).state).toBe(JobState.QUEUED);
      await eventually(async () => (await first.getJob(id)).state === JobState.RUNNING, 'the job runs again');
    }
    expect((await first.cancelJob(id)).state).toBe(JobState.CANCELLED);
    expect((await second.cancelJob(id)).state).toBe(JobState.CANCELLED);
    await expect(second.pauseJob(id)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect((await second.resumeJob(id)).state).toBe(JobState.QUEUED);
    expect(await second.waitForJob(id)).toMatchObject({ state: JobState.SUCCEEDED });
    expect(await hashOutput(output)).toEqual(reference);
    await expect(first.resumeJob(id)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    await first.deleteJob(id, { deleteOutput: true });
    await expect(second.getJob(id)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await expect(hashOutput(output)).rejects.toThrow('ENOENT');
  }));
