import { afterEach, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import { keyOf } from '../store/job-record.js';
import { MemoryJobStore } from '../store/memory-job-store.js';
import type { JobStore } from '../store/job-store.js';
import { JobLease } from './job-lease.js';
import { JobLog } from './job-log.js';

const LEASE_MS = 60_000;
const NO_LIMITS = { others: 10, tenants: {} };

const stores: JobStore[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});

/** A job that is leased here, with a store that answers as slowly as wanted. */
async function leased(beforeChange: () => Promise<void> = () => Promise.resolve()) {
  const memory = new MemoryJobStore();
  const store: JobStore = Object.assign(Object.create(memory) as JobStore, {
    change: async (...args: Parameters<JobStore['change']>) => {
      await beforeChange();
      return memory.change(...args);
    },
  });
  stores.push(memory);
  await memory.insert(Job.fromPartial({ id: 'job', state: JobState.QUEUED }), JobSpec.fromPartial({}), 10);
  const record = await memory.acquire('here', LEASE_MS, NO_LIMITS);
  const lease = new JobLease('job', record!.lease!.token, LEASE_MS, performance.now());
  return { memory, lease, log: new JobLog(store, record!, lease, () => undefined) };
}

const progress = (done: number) => ({ $case: 'progress', value: { layer: 0, step: 'collect', done, total: 0 } }) as const;

async function stored(store: JobStore): Promise<number[]> {
  const events = await store.events(keyOf((await store.read('job'))!), 0, 10_000);
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1));
  return events.flatMap(({ event }) => (event?.$case === 'progress' ? [event.value.done] : []));
}

test('all events are stored in order, those that come while others are being stored too', async () => {
  const { memory, log } = await leased(() => new Promise((resolve) => setImmediate(resolve)));
  const count = 1_500;
  for (let event = 0; event < count; ++event) {
    log.append(progress(event));
    if (event % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await log.flush();
  expect(await stored(memory)).toEqual(Array.from({ length: count }, (_, event) => event));
});

test('a change comes after the events before it', async () => {
  const { memory, log } = await leased();
  log.append(progress(1));
  await log.commit({ events: [progress(2)], wish: 'pause' });
  expect(await stored(memory)).toEqual([1, 2]);
  expect((await memory.read('job'))?.wish).toBe('pause');
});

test('once the lease went to somebody else nothing is stored, and the work is told to stop', async () => {
  const { memory, lease, log } = await leased();
  await memory.change('job', () => ({ lease: 'end' }));
  await memory.acquire('there', LEASE_MS, NO_LIMITS);
  log.append(progress(1));
  await expect(log.flush()).rejects.toMatchObject({ reason: 'LEASE_LOST' });
  await expect(log.commit({ wish: 'cancel' })).rejects.toMatchObject({ reason: 'LEASE_LOST' });
  expect(lease.signal.aborted).toBe(true);
  expect(lease.isLost).toBe(true);
  expect(await stored(memory)).toEqual([]);
});

/** Fails once with that error, and is well from then on. */
function failingOnce(error: Error): () => Promise<void> {
  const failures = [error];
  return async () => {
    const failure = failures.pop();
    if (failure !== undefined) throw failure;
  };
}

test('a store that cannot be reached for a while is tried again', async () => {
  const { memory, lease, log } = await leased(failingOnce(new SecateurError('UNAVAILABLE', 'away')));
  log.append(progress(1));
  await log.flush();
  expect(lease.isLost).toBe(false);
  expect(await stored(memory)).toEqual([1]);
});

test.each([new TypeError('a defect'), new SecateurError('FAILED_PRECONDITION', 'refused')])(
  'events that the store does not take (%s) end the attempt at once, and nothing after them is stored',
  async (failure) => {
    const { memory, lease, log } = await leased(failingOnce(failure));
    log.append(progress(1));
    await expect(log.flush()).rejects.toMatchObject(failure instanceof SecateurError ? failure : { reason: 'INTERNAL', cause: failure });
    expect(lease.signal.aborted).toBe(true);
    expect(lease.isLost).toBe(true);
    expect(() => lease.assertHeld()).toThrow(lease.signal.reason as Error);
    log.append(progress(2));
    await expect(log.flush()).rejects.toBe(lease.signal.reason);
    await expect(log.commit({ wish: 'cancel' })).rejects.toBe(lease.signal.reason);
    expect(await stored(memory)).toEqual([]);
  },
);
