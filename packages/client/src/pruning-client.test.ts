import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { JobState, type JobEvent } from '@secateur/proto/job';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { RpcServer, type DeepPartial, type ServiceImplementation } from '@secateur/rpc';
import { PruningClient } from './index.js';

type Handlers = Partial<ServiceImplementation<typeof PruningServiceDefinition>>;

const cleanUps: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

/** A service that knows only these calls. */
async function serve(handlers: Handlers, address = '127.0.0.1:0'): Promise<{ server: RpcServer; address: string }> {
  const unknown = (): never => {
    throw new SecateurError('NOT_FOUND', 'not part of this test');
  };
  const others = Object.fromEntries(Object.keys(PruningServiceDefinition.methods).map((name) => [name, async () => unknown()]));
  const server = new RpcServer();
  server.addService(PruningServiceDefinition, { ...others, ...handlers } as ServiceImplementation<typeof PruningServiceDefinition>);
  const { host, port } = await server.listen(address);
  cleanUps.push(() => server.shutdown({ graceMs: 500 }));
  return { server, address: `${host}:${port}` };
}

function clientOf(address: string): PruningClient {
  const client = PruningClient.connect(address);
  cleanUps.push(() => client.close());
  return client;
}

function event(sequence: number): { event: DeepPartial<JobEvent> } {
  return { event: { sequence, event: { $case: 'progress', value: { layer: 0, step: 'collect', done: sequence, total: 9 } } } };
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('the client', () => {
  test('creates, reads and cancels jobs', async () => {
    const { address } = await serve({
      createJob: ({ jobId, spec }) => Promise.resolve({ job: { id: jobId || 'made', spec, state: JobState.QUEUED } }),
      getJob: ({ jobId }) => Promise.resolve({ job: { id: jobId, state: JobState.RUNNING } }),
      cancelJob: ({ jobId }) => Promise.resolve({ job: { id: jobId, state: JobState.CANCELLED } }),
    });
    const client = clientOf(address);
    const spec = { kind: { $case: 'prune' as const, value: { model: '/in', output: '/out', sparsity: 0.7 } } };
    expect(await client.createJob({ spec })).toMatchObject({ id: 'made', state: JobState.QUEUED, spec });
    expect(await client.createJob({ jobId: 'mine', spec })).toMatchObject({ id: 'mine' });
    expect(await client.getJob('mine')).toMatchObject({ id: 'mine', state: JobState.RUNNING });
    expect(await client.cancelJob('mine')).toMatchObject({ state: JobState.CANCELLED });
  });

  test('writes reports to files, whole or not at all', async () => {
    const { address } = await serve({
      getReport: ({ jobId }) =>
        jobId === 'done'
          ? Promise.resolve({ report: { $case: 'evaluate', value: { model: '/in', perplexity: 12.5, windows: 3 } } })
          : Promise.reject(new SecateurError('FAILED_PRECONDITION', 'not yet')),
    });
    const client = clientOf(address);
    const folder = await mkdtemp(join(tmpdir(), 'secateur-client-'));
    cleanUps.push(() => rm(folder, { recursive: true }));
    const path = join(folder, 'report.json');
    await writeFile(path, 'before');
    await expect(client.downloadReport('other', path)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect(await readFile(path, 'utf8')).toBe('before');
    await client.downloadReport('done', path);
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ model: '/in', perplexity: 12.5 });
    await expect(client.downloadReport('done', join(folder, 'none/report.json'))).rejects.toMatchObject({
      message: expect.stringContaining('none'),
    });
    expect(await readdir(folder)).toEqual(['report.json']);
  });

  test('lists jobs over all pages', async () => {
    const { address } = await serve({
      listJobs: ({ pageToken }) => {
        const page = Number(pageToken || '0');
        return Promise.resolve({ jobs: [{ id: `${page}a` }, { id: `${page}b` }], nextPageToken: page === 2 ? '' : String(page + 1) });
      },
    });
    const jobs = await collect(clientOf(address).listJobs());
    expect(jobs.map(({ id }) => id)).toEqual(['0a', '0b', '1a', '1b', '2a', '2b']);
  });

  test('lists so many jobs in some states, also where the service knows nothing of states', async () => {
    const asked: unknown[] = [];
    const { address } = await serve({
      listJobs: (request) => {
        asked.push(request);
        const start = Number(request.pageToken || '0');
        const jobs = [JobState.FAILED, JobState.RUNNING].map((state, index) => ({ id: String(start + index), state }));
        return Promise.resolve({ jobs, nextPageToken: String(start + 2) });
      },
    });
    const jobs = await collect(clientOf(address).listJobs({ states: [JobState.RUNNING], limit: 2 }));
    expect(jobs.map(({ id }) => id)).toEqual(['1', '3']);
    expect(asked).toEqual([
      { pageSize: 2, pageToken: '', states: [JobState.RUNNING] },
      { pageSize: 1, pageToken: '2', states: [JobState.RUNNING] },
    ]);
    expect(await collect(clientOf(address).listJobs({ limit: 3 }))).toHaveLength(3);
    expect(asked).toHaveLength(4);
  });

  test('goes on watching after the service was restarted, without gap or repetition', async () => {
    const asked: number[] = [];
    const { server, address } = await serve({
      async *watchJob({ afterSequence }, { signal }) {
        asked.push(afterSequence);
        for (let sequence = afterSequence + 1; sequence <= 3; sequence++) yield event(sequence);
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        throw signal.reason;
      },
    });
    const seen: number[] = [];
    for await (const { sequence } of clientOf(address).watchJob('job', { afterSequence: 1 })) {
      seen.push(sequence);
      if (sequence !== 3) continue;
      await server.shutdown({ graceMs: 5_000 });
      await serve(
        {
          async *watchJob({ afterSequence }) {
            asked.push(afterSequence);
            for (let next = afterSequence + 1; next <= 6; next++) yield event(next);
          },
        },
        address,
      );
    }
    expect(seen).toEqual([2, 3, 4, 5, 6]);
    expect(asked).toEqual([1, 3]);
  });

  test('stops watching when the service stays away or the job is unknown', async () => {
    const { server, address } = await serve({
      async *watchJob({ jobId }) {
        if (jobId !== 'job') throw new SecateurError('NOT_FOUND', `There is no job ${jobId}.`);
        yield event(1);
        void server.shutdown({ graceMs: 100 });
        throw new SecateurError('UNAVAILABLE', 'going away');
      },
    });
    const client = clientOf(address);
    await expect(collect(client.watchJob('other'))).rejects.toMatchObject({ reason: 'NOT_FOUND', message: 'There is no job other.' });
    await expect(collect(client.watchJob('job', { reconnectTimeoutMs: 200 }))).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
  });

  test('goes on with the job it watched, not with another one that has got its id', async () => {
    const [first, second] = [1, 2].map((seconds) => ({ seconds, nanos: 5_000_000 }));
    const asked: unknown[] = [];
    const { address } = await serve({
      async *watchJob({ jobCreatedAt, afterSequence }) {
        asked.push({ jobCreatedAt, afterSequence });
        if (asked.length > 1) throw new SecateurError('NOT_FOUND', 'The job is another one by now.');
        yield { heartbeat: second, jobCreatedAt: first };
        yield { ...event(1), jobCreatedAt: first };
        throw new SecateurError('UNAVAILABLE', 'going away');
      },
    });
    const client = clientOf(address);
    await expect(collect(client.watchJob('job'))).rejects.toMatchObject({ reason: 'NOT_FOUND', message: 'The job is another one by now.' });
    expect(asked).toEqual([
      { jobCreatedAt: undefined, afterSequence: 0 },
      { jobCreatedAt: first, afterSequence: 1 },
    ]);
    await expect(collect(client.watchJob('job', { jobCreatedAt: second }))).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    expect(asked.at(-1)).toEqual({ jobCreatedAt: second, afterSequence: 0 });
  });

  test('asks a service that is there but cannot answer less and less often, and not for ever', async () => {
    let calls = 0;
    const { address } = await serve({
      async *watchJob() {
        calls += 1;
        throw new SecateurError('UNAVAILABLE', 'The job database cannot be reached.');
      },
    });
    const beganMs = performance.now();
    const watching = collect(clientOf(address).watchJob('job', { reconnectTimeoutMs: 1_000 }));
    await expect(watching).rejects.toMatchObject({ reason: 'UNAVAILABLE', message: 'The job database cannot be reached.' });
    expect(performance.now() - beganMs).toBeGreaterThan(990);
    expect(calls).toBeGreaterThan(1);
    expect(calls).toBeLessThan(6);
  });

  test('goes on watching when the service answers again, each time as patiently as before', async () => {
    const asked: number[] = [];
    const { address } = await serve({
      async *watchJob({ afterSequence }) {
        asked.push(afterSequence);
        // Two events, then two refusals, and so on.
        if (asked.length % 3 !== 1) throw new SecateurError('UNAVAILABLE', 'The job database cannot be reached.');
        yield event(afterSequence + 1);
        yield event(afterSequence + 2);
        if (afterSequence < 6) throw new SecateurError('UNAVAILABLE', 'This orchestrator is shutting down.');
      },
    });
    const beganMs = performance.now();
    const events = await collect(clientOf(address).watchJob('job', { reconnectTimeoutMs: 2_000 }));
    expect(events.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(asked).toEqual([0, 2, 2, 2, 4, 4, 4, 6, 6, 6]);
    // Three times at least half of 200, 400 and 800 ms, in all longer than the service may fail to answer.
    expect(performance.now() - beganMs).toBeGreaterThan(2_000);
  });

  test('waits for its turn when it has called too often, but not for other limits', async () => {
    const asked: number[] = [];
    const { address } = await serve({
      async *watchJob({ jobId, afterSequence }) {
        asked.push(afterSequence);
        const metadata = jobId === 'job' ? { callsPerSecond: '1' } : {};
        if (asked.length === 2) throw new SecateurError('RESOURCE_EXHAUSTED', 'too much', { metadata });
        yield event(afterSequence + 1);
        if (asked.length === 1) throw new SecateurError('UNAVAILABLE', 'going away');
      },
    });
    expect(await collect(clientOf(address).watchJob('job'))).toHaveLength(2);
    expect(asked).toEqual([0, 1, 1]);
    asked.splice(0);
    await expect(collect(clientOf(address).watchJob('other'))).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    expect(asked).toEqual([0, 1]);
  });

  test('stops waiting for a service when its caller says so', async () => {
    const { address } = await serve({
      async *watchJob() {
        abort.abort();
        throw new SecateurError('UNAVAILABLE', 'going away');
      },
    });
    const abort = new AbortController();
    const beganMs = performance.now();
    await expect(collect(clientOf(address).watchJob('job', { signal: abort.signal }))).rejects.toMatchObject({ reason: 'CANCELLED' });
    expect(performance.now() - beganMs).toBeLessThan(5_000);
  });

  test('stops watching when its caller says so', async () => {
    const { address } = await serve({
      async *watchJob(_request, { signal }) {
        yield event(1);
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
    });
    const abort = new AbortController();
    const watch = async (): Promise<void> => {
      for await (const _event of clientOf(address).watchJob('job', { signal: abort.signal })) abort.abort();
    };
    await expect(watch()).rejects.toMatchObject({ reason: 'CANCELLED' });
  });

  test('waits for the end of a job', async () => {
    const jobCreatedAt = { seconds: 1, nanos: 0 };
    const asked: unknown[] = [];
    const { address } = await serve({
      async *watchJob() {
        yield { ...event(1), jobCreatedAt };
      },
      getJob: (request) =>
        asked.push(request) === 1
          ? Promise.reject(new SecateurError('UNAVAILABLE', 'The job database cannot be reached.'))
          : Promise.resolve({ job: { id: 'job', state: JobState.FAILED, error: { code: 3, message: 'wrong', details: [] } } }),
    });
    expect(await clientOf(address).waitForJob('job')).toMatchObject({ state: JobState.FAILED, error: { message: 'wrong' } });
    // It is to be that very job.
    expect(asked).toEqual([
      { jobId: 'job', jobCreatedAt },
      { jobId: 'job', jobCreatedAt },
    ]);
  });

  test('reads reports, traces and nodes', async () => {
    const { address } = await serve({
      getReport: () => Promise.resolve({ report: { $case: 'evaluate', value: { perplexity: 12.5 } } }),
      async *getTrace() {
        yield { otlpJson: Buffer.from('{}') };
        yield { otlpJson: Buffer.from('[]') };
      },
      listNodes: () => Promise.resolve({ nodes: [{ address: '127.0.0.1:1', healthy: true }] }),
    });
    const client = clientOf(address);
    expect(await client.getReport('job')).toMatchObject({ report: { $case: 'evaluate', value: { perplexity: 12.5 } } });
    expect((await collect(client.getTrace('job'))).map((chunk) => Buffer.from(chunk).toString())).toEqual(['{}', '[]']);
    expect(await client.listNodes()).toMatchObject([{ address: '127.0.0.1:1', healthy: true }]);
  });
});
