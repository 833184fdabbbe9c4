import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import pg from 'pg';
import { PostgresServer } from '../../../../tests/support/postgres-server.js';
import { creationTime, keyOf, requireLease, type JobChange, type JobKey } from './job-record.js';
import type { JobStore, ListPosition, RunningLimits } from './job-store.js';
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
  readonly id?: string;
  readonly tenant?: string;
  readonly output?: string;
  readonly priority?: number;
  readonly maximumUnended?: number;
}

/** Adds a job with an id of its own. */
async function add(
  store: JobStore,
  { id: given, tenant = 'default', output, priority = 0, maximumUnended = 1_000 }: NewJob = {},
): Promise<string> {
  const id = given ?? `job-${String(++jobs).padStart(4, '0')}`;
  const spec = pruneSpec(output ?? `/out/${id}`, priority);
  // Pairs are of the same time, as jobs of several orchestrators can be.
  const job = Job.fromPartial({ id, spec, tenant, state: JobState.QUEUED, createdAt: { seconds: jobs >> 1, nanos: 7_000_000 } });
  await store.insert(job, spec, maximumUnended);
  return id;
}

function becomes(...states: readonly JobState[]): JobChange {
  return { events: states.map((state) => ({ $case: 'stateChanged', value: { state, error: undefined } })) };
}

/** Where the tenant may have so many jobs that have not ended. */
function goesOn(maximumUnended = 1_000): JobChange {
  return { ...becomes(JobState.QUEUED), maximumUnended };
}

const change = (store: JobStore, id: string, what: JobChange) => store.change(id, () => what);
const end = (store: JobStore, id: string) => change(store, id, { ...becomes(JobState.CANCELLED), lease: 'end' });

async function keyIn(store: JobStore, id: string): Promise<JobKey> {
  return keyOf((await store.read(id))!);
}

async function positionOf(store: JobStore, id: string): Promise<ListPosition> {
  return { id, createdAt: creationTime((await store.read(id))!.job) };
}

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

test('a server that cannot be reached is named, and its password is not', async () => {
  const opening = openJobStore('postgres://user:secret@127.0.0.1:1/jobs', PROBLEMS);
  const error = await opening.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({
    reason: 'UNAVAILABLE',
    message: expect.stringContaining('database at 127.0.0.1:1 cannot be used; check --state'),
  });
  expect((error as Error).message).not.toContain('secret');
});

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
    expect(record?.job).toMatchObject({ id, tenant: 'a', state: JobState.QUEUED, createdAt: { seconds: jobs >> 1 } });
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
    expect(await store.readReport(keyOf(record!))).toEqual(expect.objectContaining({ 0: 1, 1: 2, length: 2 }));
    expect((await store.events(keyOf(record!), 0, 10)).map(({ sequence }) => sequence)).toEqual([1, 2]);
    expect((await store.events(keyOf(record!), 1, 10)).map(({ sequence }) => sequence)).toEqual([2]);
    expect(await store.events(keyOf(record!), 0, 1)).toHaveLength(1);
    const nobody = { id: 'nobody', number: 1 };
    expect(await store.sequences([keyOf(record!), nobody])).toEqual(new Map([[record!.number, 2]]));
    await expect(store.change('nobody', () => ({}))).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await expect(store.events(nobody, 0, 1)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await end(store, id);
  });

  test('that write to one folder are refused until the first has ended', async () => {
    const first = await add(store, { output: '/out/shared' });
    await expect(add(store, { output: '/out/shared' })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    expect(await store.isBeingWritten('/out/shared')).toBe(true);
    await end(store, first);
    expect(await store.isBeingWritten('/out/shared')).toBe(false);
    const second = await add(store, { output: '/out/shared' });
    await expect(change(store, first, goesOn())).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    expect((await store.read(first))?.job.state).toBe(JobState.CANCELLED);
    await end(store, second);
  });

  test('beyond what a tenant may have are refused', async () => {
    const id = await add(store, { tenant: 'full', maximumUnended: 1 });
    await expect(add(store, { tenant: 'full', maximumUnended: 1 })).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    await end(store, id);
    await end(store, await add(store, { tenant: 'full', maximumUnended: 1 }));
  });

  test('beyond what a tenant may have are refused, however many come at the same time', async () => {
    const added = await Promise.allSettled(Array.from({ length: 12 }, () => add(store, { tenant: 'crowded', maximumUnended: 3 })));
    const refused = added.flatMap((result): unknown[] => (result.status === 'rejected' ? [result.reason] : []));
    expect(refused).toEqual(Array.from({ length: 9 }, () => expect.objectContaining({ reason: 'RESOURCE_EXHAUSTED' })));
    const present = await store.list({ tenant: 'crowded', states: [], before: undefined, limit: 100 });
    expect(present).toHaveLength(3);
    // The same request again is no other job.
    const again = await Promise.all(present.map((job) => store.insert(job, job.spec!, 3)));
    expect(again).toEqual([undefined, undefined, undefined]);
    for (const { id } of present) await end(store, id);
  });

  test('that have ended go on only where the tenant may have one more, however many do at the same time', async () => {
    const ids = [await add(store, { tenant: 'returns' }), await add(store, { tenant: 'returns' }), await add(store, { tenant: 'returns' })];
    for (const id of ids) await end(store, id);
    const waits = await add(store, { tenant: 'returns' });
    await expect(change(store, ids[0]!, goesOn(1))).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    expect(await store.read(ids[0]!)).toMatchObject({ sequence: 1, job: { state: JobState.CANCELLED } });
    const attempts = [...ids.map((id) => change(store, id, goesOn(3))), add(store, { tenant: 'returns', maximumUnended: 3 })];
    const refused = (await Promise.allSettled<unknown>(attempts)).flatMap((result): unknown[] =>
      result.status === 'rejected' ? [result.reason] : [],
    );
    expect(refused).toEqual(Array.from({ length: 2 }, () => expect.objectContaining({ reason: 'RESOURCE_EXHAUSTED' })));
    // One that has not ended counts already.
    await change(store, waits, becomes(JobState.PAUSED));
    await change(store, waits, becomes(JobState.QUEUED));
    const unended = await store.list({ tenant: 'returns', states: [JobState.QUEUED], before: undefined, limit: 10 });
    expect(unended).toHaveLength(3);
    for (const { id } of unended) await end(store, id);
  });

  test('that have ended do not go on without a limit', async () => {
    const id = await add(store);
    await end(store, id);
    await expect(change(store, id, becomes(JobState.QUEUED))).rejects.toThrow('has to say how many its tenant may have');
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
    expect(first?.lease).toMatchObject({ owner: 'a' });
    const lost = first!.lease!.token;
    await change(store, id, becomes(JobState.PLANNING));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(store.change(id, (record, now) => (requireLease(record, lost, now), {}))).rejects.toMatchObject({ reason: 'LEASE_LOST' });
    const second = await store.acquire('b', LEASE_MS, NO_LIMITS);
    expect(second).toMatchObject({ job: { id, state: JobState.PLANNING }, lease: { owner: 'b' } });
    const { token } = second!.lease!;
    expect(token).toBeGreaterThan(lost);
    await expect(store.change(id, (record, now) => (requireLease(record, lost, now), {}))).rejects.toMatchObject({ reason: 'LEASE_LOST' });
    await store.change(id, (record, now) => (requireLease(record, token, now), { wish: 'cancel' }));
    expect(await store.held('a')).toEqual([]);
    expect(await store.held('b')).toEqual([{ id, token, wish: 'cancel' }]);
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
    const list = async (tenant: string | undefined, before: ListPosition | undefined, limit: number) =>
      (await store.list({ tenant, states: [], before, limit })).map((job) => job.id);
    expect(await list('lists', undefined, 10)).toEqual([ids[2], ids[0]]);
    expect(await list('lists', await positionOf(store, ids[2]!), 10)).toEqual([ids[0]]);
    expect(await list(undefined, undefined, 2)).toEqual([ids[2], ids[1]]);
    for (const id of ids) await end(store, id);
  });

  test('are listed without gap or repetition when they are removed between pages', async () => {
    const ids: string[] = [];
    for (let count = 0; count < 7; ++count) ids.unshift(await add(store, { tenant: 'removes' }));
    const listed: string[] = [];
    let before: ListPosition | undefined;
    for (;;) {
      const [page, others] = [
        await store.list({ tenant: 'removes', states: [], before, limit: 2 }),
        await add(store, { tenant: 'others' }),
      ];
      await end(store, others);
      if (page.length === 0) break;
      listed.push(...page.map(({ id }) => id));
      before = await positionOf(store, listed.at(-1)!);
      for (const { id } of page) {
        await end(store, id);
        await store.remove(await keyIn(store, id));
      }
    }
    expect(listed).toEqual(ids);
  });

  test('are listed by their states', async () => {
    const ids = [await add(store, { tenant: 'states' }), await add(store, { tenant: 'states' }), await add(store, { tenant: 'states' })];
    await end(store, ids[0]!);
    await change(store, ids[1]!, becomes(JobState.PAUSED));
    const list = async (states: readonly JobState[], before?: ListPosition) =>
      (await store.list({ tenant: 'states', states, before, limit: 10 })).map(({ id }) => id);
    expect(await list([])).toEqual([ids[2], ids[1], ids[0]]);
    expect(await list([JobState.CANCELLED])).toEqual([ids[0]]);
    expect(await list([JobState.QUEUED, JobState.CANCELLED])).toEqual([ids[2], ids[0]]);
    expect(await list([JobState.QUEUED, JobState.CANCELLED], await positionOf(store, ids[2]!))).toEqual([ids[0]]);
    expect(await list([JobState.FAILED])).toEqual([]);
    for (const id of ids.slice(1)) await end(store, id);
  });

  test('are removed with all that belongs to them, once they have ended', async () => {
    const id = await add(store);
    const leased = await store.acquire('a', LEASE_MS, NO_LIMITS);
    await store.addTrace(id, leased!.lease!.token, Uint8Array.of(7));
    const job = keyOf(leased!);
    await expect(store.remove(job)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect(await store.expired(10)).toEqual([]);
    await change(store, id, { ...becomes(JobState.CANCELLED), lease: 'end', keptForMs: 0 });
    expect((await store.expired(10)).map(({ job }) => job.id)).toEqual([id]);
    expect((await store.remove(job)).job.id).toBe(id);
    expect(await store.read(id)).toBeUndefined();
    const chunks: Uint8Array[] = [];
    for await (const chunk of store.readTrace(job)) chunks.push(chunk);
    expect(chunks).toEqual([]);
  });

  test('have leases that one of a job that had their id before does not stand for', async () => {
    const tokens: number[] = [];
    for (let time = 0; time < 2; ++time) {
      const id = await add(store, { id: 'leased-again' });
      tokens.push((await store.acquire('a', LEASE_MS, NO_LIMITS))!.lease!.token);
      await end(store, id);
      await store.remove(keyOf((await store.read(id))!));
    }
    expect(tokens[1]).toBeGreaterThan(tokens[0]!);
  });

  test('are not taken for another one that had their id', async () => {
    const job = (id: string, tenant: string) =>
      Job.fromPartial({ id, tenant, spec, state: JobState.QUEUED, createdAt: { seconds: 1, nanos: 0 } });
    const spec = pruneSpec('/out/again');
    const first = await store.insert(job('again', 'first'), spec, 9);
    await end(store, 'again');
    await store.remove(keyOf(first!));
    const second = await store.insert(job('again', 'second'), spec, 9);
    expect(second!.number).not.toBe(first!.number);
    const leased = await store.acquire('a', LEASE_MS, NO_LIMITS);
    await store.addTrace('again', leased!.lease!.token, Uint8Array.of(7));
    await change(store, 'again', { ...becomes(JobState.PLANNING), report: Uint8Array.of(1) });
    await end(store, 'again');
    const gone = keyOf(first!);
    expect(await store.sequences([gone, keyOf(second!)])).toEqual(new Map([[second!.number, 2]]));
    // Behind, and up to date.
    for (const after of [0, 2]) await expect(store.events(gone, after, 10)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    expect(await store.readReport(gone)).toBeUndefined();
    expect(await store.readReport(keyOf(second!))).toHaveLength(1);
    for await (const chunk of store.readTrace(gone)) expect(chunk).toBeUndefined();
    await expect(store.remove(gone)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    expect(await store.read('again')).toMatchObject({ number: second!.number, job: { tenant: 'second' } });
    await store.remove(keyOf(second!));
  });

  test('have blocks left to do until they are paused or have ended', async () => {
    const planned = (layers: number, resumedLayers: number) => ({
      $case: 'planned' as const,
      value: { layers, resumedLayers, samples: 1, sequenceLength: 1, weights: 1 },
    });
    const finished = (layer: number) => ({ $case: 'layerFinished' as const, value: { layer, projections: [], seconds: 1 } });
    const begun = becomes(JobState.PLANNING, JobState.RUNNING).events ?? [];
    expect(await store.pendingLayers()).toBe(0);
    const [waits, runs, goesOn] = [await add(store), await add(store), await add(store)];
    expect(await store.pendingLayers()).toBe(3 * 32);
    await change(store, waits, becomes(JobState.PLANNING));
    await change(store, runs, { events: [...begun, planned(40, 0), finished(0)] });
    await change(store, goesOn, { events: [...begun, planned(80, 70)] });
    expect(await store.pendingLayers()).toBe(32 + 39 + 10);
    await change(store, runs, { events: [finished(1), finished(2)] });
    await change(store, goesOn, becomes(JobState.QUEUED));
    expect(await store.pendingLayers()).toBe(32 + 37 + 10);
    await change(store, goesOn, becomes(JobState.PAUSED));
    expect(await store.pendingLayers()).toBe(32 + 37);
    await change(store, goesOn, becomes(JobState.QUEUED));
    expect(await store.pendingLayers()).toBe(32 + 37 + 10);
    await change(store, runs, becomes(JobState.FAILED));
    await end(store, goesOn);
    expect(await store.pendingLayers()).toBe(32);
    await end(store, waits);
    expect(await store.pendingLayers()).toBe(0);
  });

  test('keep their spans in order', async () => {
    const id = await add(store);
    const { token } = (await store.acquire('a', LEASE_MS, NO_LIMITS))!.lease!;
    for (let chunk = 0; chunk < 40; ++chunk) await store.addTrace(id, token, Uint8Array.of(chunk));
    const read: number[] = [];
    for await (const chunk of store.readTrace(await keyIn(store, id))) read.push(...chunk);
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
    for await (const chunk of store.readTrace(await keyIn(store, id))) chunks.push(...chunk);
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

test('a database of the version before is brought up to date with its jobs', async () => {
  await using server = await PostgresServer.start();
  const before = await openJobStore(server.url, PROBLEMS);
  const ids: string[] = [];
  for (let count = 0; count < 5; ++count) ids.unshift(await add(before));
  const leased = (await before.acquire('a', 1, NO_LIMITS))!;
  await before.close();
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query(`
    ALTER TABLE secateur.jobs DROP COLUMN created_at;
    CREATE INDEX jobs_number ON secateur.jobs (number);
    CREATE INDEX jobs_of_tenant ON secateur.jobs (tenant, number);
    DROP SEQUENCE secateur.lease_tokens;
    UPDATE secateur.jobs SET lease_token = 70 WHERE id = '${leased.job.id}';
    DELETE FROM secateur.kysely_migration WHERE name <> '0001_jobs';
  `);
  await client.end();
  const store = await openJobStore(server.url, PROBLEMS);
  try {
    const last = await positionOf(store, ids[1]!);
    const list = async (position: ListPosition | undefined) =>
      (await store.list({ tenant: undefined, states: [], before: position, limit: 10 })).map(({ id }) => id);
    expect(await list(undefined)).toEqual(ids);
    expect(await list(last)).toEqual(ids.slice(2));
    const again = await store.acquire('b', LEASE_MS, NO_LIMITS);
    expect(again?.job.id).toBe(leased.job.id);
    expect(again?.lease?.token).toBeGreaterThan(70);
  } finally {
    await store.close();
  }
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

test('a server that only reads, while another takes over from it, is UNAVAILABLE until it writes again', async () => {
  await using server = await PostgresServer.start();
  const store = await openJobStore(server.url, PROBLEMS);
  const setReadOnly = async (value: 'on' | 'off'): Promise<void> => {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    await client.query('SET default_transaction_read_only = off');
    await client.query(`ALTER DATABASE postgres SET default_transaction_read_only = ${value}`);
    await client.end();
    // It counts for connections that are made from now on.
    await server.end('SIGKILL');
    await expect(store.list({ tenant: undefined, states: [], before: undefined, limit: 1 })).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
    });
    await server.run();
  };
  try {
    const id = await add(store);
    await setReadOnly('on');
    await expect(change(store, id, { wish: 'pause' })).rejects.toMatchObject({ reason: 'UNAVAILABLE', cause: { code: '25006' } });
    await setReadOnly('off');
    expect((await change(store, id, { wish: 'pause' })).wish).toBe('pause');
  } finally {
    await store.close();
  }
});
