/** Watchers of a job whose id another one gets, in every store there is. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import { pino } from 'pino';
import { PostgresServer } from '../../../../tests/support/postgres-server.js';
import { keyOf, type JobRecord, type NewEvent } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import { openJobStore } from '../store/open-job-store.js';
import { JobFeed } from './job-feed.js';
import { becomes } from './state-change.js';

const EVENTS: readonly NewEvent[] = [becomes(JobState.PLANNING), becomes(JobState.RUNNING)];
/** More than a watcher reads at once. */
const MANY = 1_200;

/** In the order they were opened. */
const open: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const close of open.reverse()) await close();
});

const states: Readonly<Record<string, () => Promise<string>>> = {
  memory: () => Promise.resolve('memory'),
  'a folder': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'job-feed-'));
    open.push(() => rm(folder, { recursive: true }));
    return folder;
  },
  PostgreSQL: async () => {
    const server = await PostgresServer.start();
    open.push(() => server[Symbol.asyncDispose]());
    return server.url;
  },
};

describe.each(Object.keys(states))('with jobs in %s', (kind) => {
  let store: JobStore;
  beforeAll(async () => {
    store = await openJobStore(await states[kind]!(), {
      onError: () => undefined,
      onFatal: (error) => {
        throw error;
      },
    });
    open.push(() => store.close());
  });

  async function add(id: string, tenant: string, events: readonly NewEvent[] = EVENTS): Promise<JobRecord> {
    const spec = JobSpec.fromPartial({});
    const job = Job.fromPartial({ id, tenant, spec, state: JobState.QUEUED, createdAt: { seconds: 1, nanos: 0 } });
    await store.insert(job, spec, 9);
    return store.change(id, () => ({ events }));
  }

  /** Has another tenant take the id of a job. */
  async function replace(record: JobRecord, events?: readonly NewEvent[]): Promise<JobRecord> {
    const { id } = record.job;
    await store.change(id, () => ({ events: [becomes(JobState.CANCELLED)] }));
    await store.remove(keyOf(record));
    return add(id, 'other', events);
  }

  async function watching(work: (feed: JobFeed, signal: AbortSignal) => Promise<void>): Promise<void> {
    const feed = new JobFeed(store, pino({ level: 'silent' }));
    const over = new AbortController();
    try {
      await work(feed, over.signal);
    } finally {
      over.abort();
      feed.stop();
    }
  }

  test('a watcher that has seen all there was learns that the job is gone', () =>
    watching(async (feed, signal) => {
      const first = await add('up-to-date', 'first');
      const watcher = feed.watch(first, 0, signal);
      for (const sequence of [1, 2]) expect((await watcher.next()).value).toMatchObject({ sequence });
      const next = watcher.next().then(
        ({ value }) => (value?.event?.$case === 'stateChanged' ? value.event.value.state : undefined),
        (error: unknown) => error,
      );
      const second = await replace(first, [...EVENTS, becomes(JobState.QUEUED), becomes(JobState.PLANNING)]);
      // It may have seen how the job ended, just before it was removed.
      const learnt = await next;
      if (learnt !== JobState.CANCELLED) expect(learnt).toMatchObject({ reason: 'NOT_FOUND' });
      expect((await watcher.next()).done).toBe(true);
      // Those who watch the other one meanwhile see it from its beginning.
      expect((await feed.watch(second, 0, signal).next()).value).toMatchObject({ sequence: 1 });
    }));

  test('a watcher that claims to have seen more than there is gets what comes, and keeps nobody busy', () =>
    watching(async (feed, signal) => {
      const record = await add('ahead', 'first');
      const ahead = feed.watch(record, 1_000_000, signal).next();
      const behind = feed.watch(record, 0, signal);
      for (const sequence of [1, 2]) expect((await behind.next()).value).toMatchObject({ sequence });
      const next = behind.next();
      const read = jest.spyOn(store, 'events');
      // Timers come to their turn, and the store is left alone.
      await sleep(300);
      expect(read.mock.calls.length).toBeLessThan(5);
      read.mockRestore();
      await store.change('ahead', () => ({ events: [becomes(JobState.PAUSED)] }));
      expect((await Promise.all([ahead, next])).map(({ value }) => value?.sequence)).toEqual([3, 3]);
    }));

  test('a watcher that is behind learns it when it reads on', () =>
    watching(async (feed, signal) => {
      const progress: NewEvent = { $case: 'progress', value: { layer: 0, step: 'collect', done: 1, total: 2 } };
      const many = [...EVENTS, ...Array.from({ length: MANY }, () => progress)];
      const first = await add('behind', 'first', many);
      const watcher = feed.watch(first, 0, signal);
      expect((await watcher.next()).value).toMatchObject({ sequence: 1 });
      const second = await replace(first, many);
      const others = feed.watch(second, 0, signal);
      expect((await others.next()).value).toMatchObject({ sequence: 1 });
      const seen: number[] = [];
      const reading = (async () => {
        for await (const event of watcher) seen.push(event?.sequence ?? 0);
      })();
      await expect(reading).rejects.toMatchObject({ reason: 'NOT_FOUND' });
      // What it had at hand already.
      expect(seen.length).toBeLessThan(MANY);
    }));
});
