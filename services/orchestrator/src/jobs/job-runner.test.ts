/** What becomes of jobs whose attempts end, with a real store and real files. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import { GetReportResponse } from '@secateur/proto/pruning_service';
import { pino } from 'pino';
import { OutputPlaces } from '../output/output-places.js';
import type { JobRecord, Wish } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import { MemoryJobStore } from '../store/memory-job-store.js';
import { JobFeed } from './job-feed.js';
import type { JobLease } from './job-lease.js';
import { JobRunner, type LeasedJob, type Report } from './job-runner.js';
import { becomes } from './state-change.js';
import { Tenants } from './tenants.js';

const REPORT = GetReportResponse.fromPartial({ report: { $case: 'evaluate', value: {} } }).report!;

let folder: string;
let output: string;
let store: JobStore;
let outputs: OutputPlaces;
const runners: JobRunner[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'job-runner-'));
  output = join(folder, 'out');
  store = new MemoryJobStore();
  outputs = new OutputPlaces(join(folder, 'staging'));
  const spec = JobSpec.fromPartial({ kind: { $case: 'prune', value: { model: '/m', output } }, maximumAttempts: 3 });
  await store.insert(
    Job.fromPartial({ id: 'job', spec, tenant: 'research', state: JobState.QUEUED, createdAt: { seconds: 1, nanos: 0 } }),
    spec,
    9,
  );
});
afterEach(async () => {
  for (const runner of runners.splice(0)) await runner.stop();
  await rm(folder, { recursive: true });
});

function start(work: (leased: LeasedJob) => Promise<Report>): JobRunner {
  const logger = pino({ level: 'silent' });
  const feed = new JobFeed(store, logger);
  const tenants = Tenants.alike([folder]);
  const runner = new JobRunner({
    store,
    feed,
    logger,
    name: 'here',
    slots: 1,
    leaseMs: 30_000,
    tenants,
    outputs,
    keptForMs: () => 1e6,
    work,
  });
  runners.push(runner);
  runner.start();
  return runner;
}

async function until(holds: (record: JobRecord) => boolean): Promise<JobRecord> {
  for (;;) {
    const record = await store.read('job');
    if (record !== undefined && holds(record)) return record;
    await sleep(5);
  }
}

const isIn =
  (state: JobState) =>
  (record: JobRecord): boolean =>
    record.job.state === state;

describe('what a caller wants while an attempt comes to its end is done', () => {
  test.each<[Wish, JobState]>([
    ['cancel', JobState.CANCELLED],
    ['pause', JobState.PAUSED],
  ])('%s, as its orchestrator shuts down', async (wish, state) => {
    let lease: JobLease | undefined;
    let fail: (error: Error) => void = () => undefined;
    const runner = start((leased) => {
      lease = leased.lease;
      return new Promise((_, reject) => {
        fail = reject;
      });
    });
    await until(() => lease !== undefined);
    const stopped = runner.stop();
    await until(() => lease?.signal.aborted === true);
    await store.change('job', () => ({ wish }));
    fail(new SecateurError('CANCELLED', 'stopped'));
    await stopped;
    expect(await store.read('job')).toMatchObject({ wish: 'run', lease: undefined, job: { state } });
  });

  test('cancel, as it fails and would be tried again', async () => {
    start(async () => {
      await store.change('job', () => ({ wish: 'cancel' }));
      throw new SecateurError('UNAVAILABLE', 'no node');
    });
    const { job } = await until(isIn(JobState.CANCELLED));
    expect(job.state).toBe(JobState.CANCELLED);
    expect(job.expiresAt).toBeDefined();
  });

  test('and where nothing is wanted the job waits to be tried again', async () => {
    start(() => Promise.reject(new SecateurError('UNAVAILABLE', 'no node')));
    const { job } = await until(({ job: { failedAttempts } }) => failedAttempts === 1);
    expect(job.state).toBe(JobState.QUEUED);
  });
});

describe('an output that had all but its name', () => {
  const publish = async ({ log }: LeasedJob): Promise<Report> => {
    await log.commit({ report: new Uint8Array([1]) });
    await outputs
      .at(output)
      .publish({ unlock: () => Promise.resolve(), assertHeld: () => undefined, identity: '', signal: new AbortController().signal });
    return REPORT;
  };
  const resume = (): Promise<JobRecord> =>
    store.change('job', () => ({ events: [becomes(JobState.QUEUED)], requeue: true, delayMs: 0, maximumUnended: 9 }));

  beforeEach(async () => {
    await mkdir(`${output}.partial`);
    await writeFile(join(`${output}.partial`, 'model.safetensors'), 'pruned');
  });

  test("is not somebody else's folder of that name", async () => {
    await mkdir(output);
    await writeFile(join(output, 'journal.jsonl'), "somebody's");
    start(publish);
    for (let attempt = 1; attempt <= 2; attempt++) {
      const { job } = await until(isIn(JobState.FAILED));
      expect([job.attempt, job.error?.message]).toEqual([attempt, expect.stringMatching(/exists/)]);
      await resume();
      await until(({ job: { state } }) => state !== JobState.FAILED);
    }
    expect(await readdir(output)).toEqual(['journal.jsonl']);
    expect(await readdir(`${output}.partial`)).toEqual(['model.safetensors']);
  });

  test('is done where only the end of its attempt was lost', async () => {
    let attempts = 0;
    start(async (leased) => {
      attempts += 1;
      await publish(leased);
      throw new SecateurError('INTERNAL', 'the disk is full');
    });
    await until(isIn(JobState.FAILED));
    await resume();
    await until(isIn(JobState.SUCCEEDED));
    expect([attempts, await readdir(output)]).toEqual([1, ['model.safetensors']]);
  });
});
