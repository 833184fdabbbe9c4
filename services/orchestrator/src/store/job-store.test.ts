import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import { PostgresServer } from '../../../../tests/support/postgres-server.js';
import { requireLease, type JobChange } from './job-record.js';
import type { JobStore, RunningLimits } from './job-store.js';
import { openJobStore, type StoreProblems } from './open-job-store.js';

const NO_LIMITS: RunningLimits = { others: 1_000, tenants: {} };
const LEASE_MS = 60_000;
const PROBLEMS: StoreProblems = {
  onError: () => undefined,
  onFatal: (error) => {
    throw error;
  },
};

function pruneSpec(output: string, priority = 0): JobSpec {
  return JobSpec.fromPartial({ kind: { $case: 'prune', value: { model: '/m', output } }, priority });
}

let jobs = 0;
interface NewJob {
  readonly tenant?: string;
  readonly output?: string;
  readonly priority?: number;
  readonly maximumWaiting?: number;
}

/** Adds a job with an id of its own. */
async function add(store: JobStore, { tenant = 'default', output, priority = 0, maximumWaiting = 1_000 }: NewJob = {}): Promise<string> {
  const id = `job-${++jobs}`;
  const spec = pruneSpec(output ?? `/out/${id}`, priority);
  const job = Job.fromPartial({ id, spec, tenant, state: JobState.QUEUED, createdAt: { seconds: 1, nanos: 0 } });
  await store.insert(job, spec, maximumWaiting);
  return id;
}

function becomes(...states: readonly JobState[]): JobChange {
  return { events: states.map((state) => ({ $case: 'stateChanged', value: { state, error: undefined } })) };
}

const change = (store: JobStore, id: string, what: JobChange) => store.change(id, () => what);
const end = (store: JobStore, id: string) => change(store, id, { ...becomes(JobState.CANCELLED), lease: 'end' });

/** Leases what is to be leased, in order, and ends it, so that the next test finds an empty queue. */
async function leaseAll(store: JobStore, limits = NO_LIMITS): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const record = await store.acquire('a', LEASE_MS, limits);
    if (record === undefined) break;
    ids.push(record.job.id);
  }
  for (const id of ids) await end(store, id);
  return ids;
}

const stores: Readonly<Record<string, () => Promise<{ store: JobStore; close: () => Promise<void> }>>> = {
  memory: async () => {
    const store = await openJobStore('memory', PROBLEMS);
    return { store, close: () => store.close() };
  },
  'a folder': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'job-store-'));
    const store = await openJobStore(folder, PROBLEMS);
    return {
      store,
      close: async () => {
        await store.close();
        await rm(folder, { recursive: true });
      },
    };
  },
  PostgreSQL: async () => {
    const server = await PostgresServer.start();
    const store = await openJobStore(server.url, PROBLEMS);
    return {
      store,
      close: async () => {
        await store.close();
        await server[Symbol.asyncDispose]();
      },
    };
  },
};

describe.each(Object.keys(stores))('jobs in %s', (kind) => {
  let store: JobStore;
  let close: () => Promise<void>;
  beforeAll(async () => {
    ({ store, close } = await stores[kind]!());
  });
  afterAll(() => close());

  test('are what they were, and an id is taken once', async () => {
    const id = await add(store, { tenant: 'a' });
    const record = await store.read(id);
    expect(record).toMatchObject({ sequence: 0, wish: 'run', lease: undefined, hasReport: false });
    expect(record?.job).toMatchObject({ id, tenant: 'a', state: JobState.QUEUED, createdAt: { seconds: 1 } });
    expect(await store.insert(record!.job, record!.requested, 1_000)).toBeUndefined();
    expect(await store.read('nobody')).toBeUndefined();
    await leaseAll(store);
  });

  test('change as a whole or not at all, and their events are numbered', async () => {
    const id = await add(store);
    await change(store, id, { ...becomes(JobState.PLANNING, JobState.RUNNING), report: Uint8Array.of(1, 2) });
    await expect(change(store, id, becomes(JobState.SUCCEEDED, JobState.PAUSED))).rejects.toThrow('cannot become');
    const record = await store.read(id);
    expect(record).toMatchObject({ sequence: 2, hasReport: true, job: { state: JobState.RUNNING } });
    expect(await store.readReport(id)).toEqual(expect.objectContaining({ 0: 1, 1: 2, length: 2 }));
    expect((await store.events(id, 0, 10)).map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect((await store.events(id, 1, 10)).map(({ sequence }) => sequence)).toEqual([2]);
    expect(await store.events(id, 0, 1)).toHaveLength(1);
    expect(await store.sequences([id, 'nobody'])).toEqual(new Map([[id, 2]]));
    await expect(store.change('nobody', () => ({}))).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await expect(store.events('nobody', 0, 1)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await end(store, id);
  });

  test('that write to one folder are refused until the first has ended', async () => {
    const first = await add(store, { output: '/out/shared' });
    await expect(add(store, { output: '/out/shared' })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    expect(await store.isBeingWritten('/out/shared')).toBe(true);
    await end(store, first);
    expect(await store.isBeingWritten('/out/shared')).toBe(false);
    const second = await add(store, { output: '/out/shared' });
    await expect(change(store, first, becomes(JobState.QUEUED))).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    expect((await store.read(first))?.job.state).toBe(JobState.CANCELLED);
    await end(store, second);
  });

  test('beyond what a tenant may have are refused', async () => {
    const id = await add(store, { tenant: 'full', maximumWaiting: 1 });
    await expect(add(store, { tenant: 'full', maximumWaiting: 1 })).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    await end(store, id);
    await end(store, await add(store, { tenant: 'full', maximumWaiting: 1 }));
  });

  test('are leased by priority, then in the order they came', async () => {
    const ids = [await add(store), await add(store, { priority: 5 }), await add(store), await add(store, { priority: -1 })];
    await change(store, ids[0]!, { requeue: true });
    expect(await leaseAll(store)).toEqual([ids[1], ids[2], ids[0], ids[3]]);
  });

  test('are leased in turn to tenants, each up to its limit', async () => {
    const a = [await add(store, { tenant: 'a' }), await add(store, { tenant: 'a' }), await add(store, { tenant: 'a' })];
    const b = [await add(store, { tenant: 'b' }), await add(store, { tenant: 'b' })];
    expect(await leaseAll(store, { others: 2, tenants: { b: 1 } })).toEqual([a[0], b[0], a[1]]);
    expect(await leaseAll(store)).toEqual([a[2], b[1]]);
  });

  test('are not leased before their time', async () => {
    const id = await add(store);
    await change(store, id, { delayMs: 60_000 });
    expect(await leaseAll(store)).toEqual([]);
    await change(store, id, { delayMs: 0 });
    expect(await leaseAll(store)).toEqual([id]);
  });

  test('whose lease is over go to the next orchestrator, and what the first writes is refused', async () => {
    const id = await add(store);
    const first = await store.acquire('a', 1, NO_LIMITS);
    expect(first?.lease).toMatchObject({ owner: 'a', token: 1 });
    await change(store, id, becomes(JobState.PLANNING));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(store.change(id, (record, now) => (requireLease(record, 1, now), {}))).rejects.toMatchObject({ reason: 'LEASE_LOST' });
    const second = await store.acquire('b', LEASE_MS, NO_LIMITS);
    expect(second).toMatchObject({ job: { id, state: JobState.PLANNING }, lease: { owner: 'b', token: 2 } });
    await expect(store.change(id, (record, now) => (requireLease(record, 1, now), {}))).rejects.toMatchObject({ reason: 'LEASE_LOST' });
    await store.change(id, (record, now) => (requireLease(record, 2, now), { wish: 'cancel' }));
    expect(await store.held('a')).toEqual([]);
    expect(await store.held('b')).toEqual([{ id, token: 2, wish: 'cancel' }]);
    expect(await store.acquire('c', LEASE_MS, NO_LIMITS)).toBeUndefined();
    await end(store, id);
  });

  test('are each leased once, however many ask at the same time', async () => {
    const ids = await Promise.all(Array.from({ length: 12 }, () => add(store)));
    const leased = await Promise.all(
      Array.from({ length: 20 }, (_, owner) => store.acquire(String(owner), LEASE_MS, { ...NO_LIMITS, others: 10 })),
    );
    const got = leased.flatMap((record) => record?.job.id ?? []);
    expect(new Set(got).size).toBe(got.length);
    expect(got).toHaveLength(10);
    for (const id of ids) await end(store, id);
  });

  test('are listed newest first, page by page, of one tenant or all', async () => {
    const ids = [await add(store, { tenant: 'lists' }), await add(store), await add(store, { tenant: 'lists' })];
    const list = async (tenant: string | undefined, before: string | undefined, limit: number) =>
      (await store.list({ tenant, before, limit })).map((job) => job.id);
    expect(await list('lists', undefined, 10)).toEqual([ids[2], ids[0]]);
    expect(await list('lists', ids[2], 10)).toEqual([ids[0]]);
    expect(await list(undefined, undefined, 2)).toEqual([ids[2], ids[1]]);
    await expect(store.list({ tenant: undefined, before: 'nobody', limit: 1 })).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    expect(await list(undefined, ids[1], 1)).toEqual([ids[0]]);
    await expect(list('lists', ids[1], 1)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    for (const id of ids) await end(store, id);
  });

  test('are removed with all that belongs to them, once they have ended', async () => {
    const id = await add(store);
    const leased = await store.acquire('a', LEASE_MS, NO_LIMITS);
    await store.addTrace(id, leased!.lease!.token, Uint8Array.of(7));
    await expect(store.remove(id)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect(await store.expired(10)).toEqual([]);
    await change(store, id, { ...becomes(JobState.CANCELLED), lease: 'end', keptForMs: 0 });
    expect((await store.expired(10)).map(({ job }) => job.id)).toEqual([id]);
    expect((await store.remove(id)).job.id).toBe(id);
    expect(await store.read(id)).toBeUndefined();
    const chunks: Uint8Array[] = [];
    for await (const chunk of store.readTrace(id)) chunks.push(chunk);
    expect(chunks).toEqual([]);
  });

  test('keep their spans in order', async () => {
    const id = await add(store);
    const { token } = (await store.acquire('a', LEASE_MS, NO_LIMITS))!.lease!;
    for (let chunk = 0; chunk < 40; ++chunk) await store.addTrace(id, token, Uint8Array.of(chunk));
    const read: number[] = [];
    for await (const chunk of store.readTrace(id)) read.push(...chunk);
    expect(read).toEqual(Array.from({ length: 40 }, (_, chunk) => chunk));
    await end(store, id);
    await expect(store.addTrace(id, token, Uint8Array.of(1))).rejects.toMatchObject({ reason: 'LEASE_LOST' });
  });

  test('take spans from their present lease alone, also when another job has got the id', async () => {
    const id = await add(store);
    await store.acquire('a', 1, NO_LIMITS);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const lost = { reason: 'LEASE_LOST' };
    await expect(store.addTrace(id, 1, Uint8Array.of(1))).rejects.toMatchObject(lost);
    const second = await store.acquire('b', LEASE_MS, NO_LIMITS);
    await expect(store.addTrace(id, 1, Uint8Array.of(1))).rejects.toMatchObject(lost);
    await store.addTrace(id, second!.lease!.token, Uint8Array.of(2));
    await expect(store.addTrace('nobody', 1, Uint8Array.of(1))).rejects.toMatchObject(lost);
    const chunks: number[] = [];
    for await (const chunk of store.readTrace(id)) chunks.push(...chunk);
    expect(chunks).toEqual([2]);
    await end(store, id);
  });
});

test('a folder is used by one process at a time and keeps its jobs', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'job-store-'));
  const first = await openJobStore(folder, PROBLEMS);
  const id = await add(first);
  await first.close();
  const second = await openJobStore(folder, PROBLEMS);
  expect((await second.read(id))?.job.id).toBe(id);
  await second.close();
  await rm(folder, { recursive: true });
});

test('a database that is gone is UNAVAILABLE until it is back, with all that it had', async () => {
  const server = await PostgresServer.start();
  const store = await openJobStore(server.url, PROBLEMS);
  try {
    const id = await add(store);
    await server.end('SIGKILL');
    await expect(store.read(id)).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    await server.run();
    expect((await store.read(id))?.job.id).toBe(id);
  } finally {
    await store.close();
    await server[Symbol.asyncDispose]();
  }
});
