import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { JobState, type Job, type JobEvent } from '@secateur/proto/job';
import { pino } from 'pino';
import { KubernetesApi } from '../../../test/kubernetes-api.js';
import { becomes } from '../../jobs/state-change.js';
import { toTimestamp } from '../../store/job-record.js';
import { EventTeller } from './event-teller.js';
import type { PruneJob } from './prune-job.js';

const OBJECT = {
  metadata: { namespace: 'prune', name: 'qwen-70', uid: 'a-uid' },
  spec: { output: '/models/out' },
} as unknown as PruneJob;
const CALLER = { name: 'test', tenant: 'prune', administrator: false };

let api: KubernetesApi;
let folder: string;
let stop: AbortController;
/** Events of the job that the store has, and whether it can be asked. */
let events: JobEvent[];
let isAway: boolean;
let reads: number;

beforeEach(async () => {
  api = await KubernetesApi.start();
  folder = await mkdtemp(join(tmpdir(), 'secateur-test-'));
  process.env['KUBECONFIG'] = join(folder, 'config');
  await writeFile(process.env['KUBECONFIG'], api.kubeconfig);
  stop = new AbortController();
  events = [];
  isAway = false;
  reads = 0;
});

afterEach(async () => {
  stop.abort();
  delete process.env['KUBECONFIG'];
  await api[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const minutesAgo = (minutes: number): { seconds: number; nanos: number } => toTimestamp(new Date(Date.now() - minutes * 60_000));
const jobOf = (changes: Partial<Job>): Job =>
  ({ id: 'qwen-70-0', state: JobState.QUEUED, createdAt: minutesAgo(0), finishedAt: undefined, ...changes }) as Job;
const stored = (sequence: number, minutes: number, event: JobEvent['event']): JobEvent => ({ sequence, time: minutesAgo(minutes), event });

function teller(): EventTeller {
  const jobs = {
    eventsAfter: (_caller: unknown, _id: string, after: number) => {
      reads += 1;
      return isAway
        ? Promise.reject(new SecateurError('UNAVAILABLE', 'The store is away.'))
        : Promise.resolve(events.filter(({ sequence }) => sequence > after).slice(0, 1));
    },
  };
  return new EventTeller({ jobs, identity: 'orchestrator-0', logger: pino({ enabled: false }) }, stop.signal);
}

async function untilTold(...reasons: string[]): Promise<void> {
  const told = (): string =>
    api
      .eventsOf('qwen-70')
      .map(({ reason }) => reason)
      .join();
  while (told() !== reasons.join()) await api.nextRequest();
}

test('what happened long ago is not told, and what ended long ago not even read', async () => {
  events = [stored(1, 11, becomes(JobState.PAUSED)), stored(2, 9, becomes(JobState.QUEUED))];
  const tells = teller();
  await tells.tellOfJob(OBJECT, CALLER, jobOf({ createdAt: minutesAgo(20) }));
  await untilTold('Resumed');
  expect(reads).toBe(3);
  const ended = jobOf({ state: JobState.CANCELLED, finishedAt: minutesAgo(11) });
  await teller().tellOfJob(OBJECT, CALLER, ended);
  expect(reads).toBe(3);
});

test('a store that is away fails nothing, and its events are told when it is back', async () => {
  const tells = teller();
  isAway = true;
  await tells.tellOfJob(OBJECT, CALLER, jobOf({}));
  isAway = false;
  events = [stored(1, 0, becomes(JobState.PAUSED))];
  await tells.tellOfJob(OBJECT, CALLER, jobOf({ state: JobState.PAUSED }));
  await untilTold('JobCreated', 'Suspended');
});

test('a job that is made anew under its id is told of from its beginning', async () => {
  events = [stored(1, 1, becomes(JobState.PAUSED)), stored(2, 1, becomes(JobState.CANCELLED))];
  const tells = teller();
  await tells.tellOfJob(OBJECT, CALLER, jobOf({ createdAt: minutesAgo(2) }));
  events = [stored(1, 0, becomes(JobState.CANCELLED))];
  await tells.tellOfJob(OBJECT, CALLER, jobOf({ createdAt: minutesAgo(1) }));
  // Both were made and cancelled: that is counted.
  await untilTold('JobCreated', 'Suspended', 'JobCancelled');
  while (!api.eventsOf('qwen-70').every(({ reason, series }) => reason === 'Suspended' || series?.count === 2)) await api.nextRequest();
}, 30_000);
