import { describe, expect, test } from '@jest/globals';
import { JobState, type JobEvent } from '@secateur/proto/job';
import { SecateurError } from '@secateur/core';
import { becomes } from '../../jobs/state-change.js';
import { applyChange, toTimestamp, type JobRecord, type NewEvent } from '../../store/job-record.js';
import { JobNarrator, tellOfAcceptance } from './prune-job-events.js';
import { statusOf, type Finding } from './prune-job-status.js';

const NOW = new Date(Date.UTC(2026, 0, 1));
const JOB = { id: 'qwen-70-0123', createdAt: toTimestamp(NOW) };
const started = (attempt: number, afterLoss = false): NewEvent => ({
  $case: 'attemptStarted',
  value: { attempt, orchestrator: 'orchestrator-0', afterLoss },
});
const planned = (resumedLayers: number): NewEvent => ({
  $case: 'planned',
  value: { layers: 28, resumedLayers, samples: 256, sequenceLength: 2048, weights: 1 },
});
const progress: NewEvent = { $case: 'progress', value: { layer: 0, step: 'collect', done: 1, total: 2 } };
const lostNode: NewEvent = { $case: 'nodeLost', value: { address: 'a:1', name: 'node-0', reason: 'It is gone.' } };
const unkept: NewEvent = { $case: 'snapshotFailed', value: { layer: 2, reason: 'No space is left.' } };
const { PLANNING, RUNNING, PAUSED, QUEUED, SUCCEEDED, FAILED, CANCELLED } = JobState;
const full = new SecateurError('RESOURCE_EXHAUSTED', 'No space is left.');

/** The events as a store gives them, of a job that can have them. */
function stored(events: readonly NewEvent[]): JobEvent[] {
  const job = { ...JOB, state: QUEUED, failedAttempts: 0, lostAttempts: 0 };
  const record = { job, sequence: 0 } as unknown as JobRecord;
  return applyChange(record, { events }, NOW).events;
}

describe('what happens in a job', () => {
  test.each<[string, NewEvent[], string[]]>([
    [
      'from its beginning to its end',
      [started(1), becomes(PLANNING), planned(0), becomes(RUNNING), progress, lostNode, progress, becomes(SUCCEEDED)],
      ['JobStarted', 'JobPlanned', 'NodeLost', 'JobSucceeded'],
    ],
    [
      'when it is set aside',
      [started(1), becomes(PLANNING), becomes(PAUSED), becomes(QUEUED), started(2), becomes(PLANNING), becomes(CANCELLED)],
      ['JobStarted', 'Suspended', 'Resumed', 'JobStarted', 'JobCancelled'],
    ],
    [
      'when it fails, is tried again and resumed',
      [started(1), becomes(PLANNING), becomes(QUEUED, full), started(2), becomes(PLANNING), becomes(FAILED, full), becomes(QUEUED)],
      ['JobStarted', 'AttemptFailed', 'JobStarted', 'JobFailed', 'Resumed'],
    ],
    [
      'when its orchestrator stops',
      [started(1), becomes(PLANNING), becomes(QUEUED), started(2)],
      ['JobStarted', 'JobRequeued', 'JobStarted'],
    ],
    [
      'when its orchestrator is lost',
      [started(1), becomes(PLANNING), becomes(RUNNING), becomes(QUEUED), started(2, true), becomes(PLANNING), planned(3)],
      ['JobStarted', 'OrchestratorLost', 'JobPlanned'],
    ],
  ])('is told %s, whether it is read at once or bit by bit', (_when, events, reasons) => {
    const all = stored(events);
    const atOnce = new JobNarrator('/models/out');
    const told = atOnce.read(JOB, all);
    expect(told.map(({ reason }) => reason)).toEqual(['JobCreated', ...reasons]);
    expect(atOnce.lastSequence).toBe(all.length);
    expect(atOnce.read(JOB, [])).toEqual([]);
    // Those that are stored together are read together: a state after a loss, and the attempt that found it.
    const batches = new JobNarrator('/models/out');
    const middle = all.findIndex(({ event }) => event?.$case === 'attemptStarted' && event.value.attempt === 1) + 1;
    expect([...batches.read(JOB, all.slice(0, middle)), ...batches.read(JOB, all.slice(middle))]).toEqual(told);
  });

  test('is told with its cause', () => {
    const events = [started(1), becomes(PLANNING), planned(3), lostNode, unkept, becomes(FAILED, full)];
    expect(new JobNarrator('/models/out').read(JOB, stored(events)).map(({ note }) => note)).toEqual([
      'Job qwen-70-0123 waits for its turn.',
      'Attempt 1 begins on orchestrator-0.',
      '28 blocks, 256 samples of up to 2048 tokens. 3 of the blocks are done already.',
      'Node node-0 (a:1) is no longer used; its work goes to the nodes that are left: It is gone.',
      'The hidden states after 2 blocks are not kept; the job goes on without: No space is left.',
      'No space is left.',
    ]);
  });
});

describe('why there is no job', () => {
  const statusFor = (finding: Finding, generation = 1) => statusOf(finding, generation, undefined, NOW);
  const refused: Finding = { kind: 'refused', error: new SecateurError('INVALID_REQUEST', 'sparsity must be below 1.') };
  const tooMany: Finding = { kind: 'delayed', error: new SecateurError('RESOURCE_EXHAUSTED', 'Tenant prune has 2 jobs.') };

  test('is told once for each cause and each spec', () => {
    const status = statusFor(refused);
    expect(tellOfAcceptance(status, undefined, NOW)).toEqual({ reason: 'SpecRefused', note: 'sparsity must be below 1.', time: NOW });
    expect(tellOfAcceptance(status, status, NOW)).toBeUndefined();
    expect(tellOfAcceptance(statusFor(refused, 2), status, NOW)?.reason).toBe('SpecRefused');
    expect(tellOfAcceptance(statusFor(tooMany), status, NOW)?.reason).toBe('TooManyJobs');
    expect(tellOfAcceptance(statusFor({ kind: 'suspended' }), undefined, NOW)?.reason).toBe('Suspended');
  });
});
