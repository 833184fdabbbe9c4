import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Job, JobEvent, JobState } from '@secateur/proto/job';
import { SecateurError } from '../errors.js';
import { applyJobEvent, hasEnded } from './job-state.js';

const { QUEUED, PLANNING, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED } = JobState;
const STATES = [QUEUED, PLANNING, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED];

const ALLOWED: ReadonlySet<string> = new Set(
  [
    [QUEUED, PLANNING],
    [QUEUED, FAILED],
    [QUEUED, CANCELLED],
    [QUEUED, PAUSED],
    [PLANNING, QUEUED],
    [PLANNING, PAUSED],
    [RUNNING, QUEUED],
    [RUNNING, PAUSED],
    [PAUSED, QUEUED],
    [PAUSED, CANCELLED],
    [PLANNING, RUNNING],
    [PLANNING, FAILED],
    [PLANNING, CANCELLED],
    [RUNNING, SUCCEEDED],
    [RUNNING, FAILED],
    [RUNNING, CANCELLED],
    [FAILED, QUEUED],
    [CANCELLED, QUEUED],
  ].map(([from, to]) => `${from!}>${to!}`),
);

const TIME = { seconds: 1_700_000_000, nanos: 0 };

function jobIn(state: JobState): Job {
  return Job.fromPartial({ id: 'job', state, createdAt: TIME });
}

function become(state: JobState, message?: string): JobEvent {
  const error = message === undefined ? {} : { error: { code: 3, message } };
  return JobEvent.fromPartial({ time: TIME, event: { $case: 'stateChanged', value: { state, ...error } } });
}

function planned(layers: number, resumedLayers = 0): JobEvent {
  return JobEvent.fromPartial({ event: { $case: 'planned', value: { layers, resumedLayers } } });
}

function finished(layer: number): JobEvent {
  return JobEvent.fromPartial({ event: { $case: 'layerFinished', value: { layer } } });
}

function play(...events: readonly JobEvent[]): Job {
  return events.reduce(applyJobEvent, jobIn(QUEUED));
}

describe('changes of state', () => {
  for (const from of STATES) {
    for (const to of [...STATES, JobState.UNSPECIFIED]) {
      test(`${from} to ${to}`, () => {
        if (ALLOWED.has(`${from}>${to}`)) expect(applyJobEvent(jobIn(from), become(to)).state).toBe(to);
        else expect(() => applyJobEvent(jobIn(from), become(to))).toThrow(SecateurError);
      });
    }
  }

  test('name the job and both states when they cannot happen', () => {
    expect(() => applyJobEvent(jobIn(SUCCEEDED), become(RUNNING))).toThrow('Job job is succeeded and cannot become running.');
  });

  test('stamp the end, and only the end', () => {
    expect(play(become(PLANNING), become(RUNNING)).finishedAt).toBeUndefined();
    const failed = play(become(PLANNING), become(FAILED, 'broken'));
    expect(failed).toMatchObject({ finishedAt: TIME, error: { message: 'broken' } });
    const again = applyJobEvent(failed, become(QUEUED));
    expect(again).toMatchObject({ finishedAt: undefined, error: undefined, createdAt: TIME });
  });
});

test('a job that goes on counts what an earlier attempt had finished', () => {
  const first = play(become(PLANNING), planned(4), become(RUNNING), finished(0), finished(1), become(FAILED, 'lost'));
  expect(first).toMatchObject({ layers: 4, finishedLayers: 2, resumedLayers: 0 });
  const second = [become(QUEUED), become(PLANNING), planned(4, 2), become(RUNNING), finished(2), finished(3), become(SUCCEEDED)];
  expect(second.reduce(applyJobEvent, first)).toMatchObject({ layers: 4, finishedLayers: 4, resumedLayers: 2, state: SUCCEEDED });
});

test('attempts that fail are counted until a caller makes the job go on', () => {
  const twice = play(become(PLANNING), become(QUEUED, 'no node'), become(PLANNING), become(FAILED, 'no node'));
  expect(twice).toMatchObject({ failedAttempts: 2 });
  expect(applyJobEvent(twice, become(QUEUED))).toMatchObject({ failedAttempts: 0, error: undefined });
});

test('attempts whose orchestrator was lost are counted until a block is finished', () => {
  const attempt = (number: number, afterLoss: boolean): JobEvent =>
    JobEvent.fromPartial({ event: { $case: 'attemptStarted', value: { attempt: number, afterLoss } } });
  const lost = play(attempt(1, false), attempt(2, true), attempt(3, true));
  expect(lost).toMatchObject({ attempt: 3, lostAttempts: 2 });
  expect(applyJobEvent(lost, finished(0))).toMatchObject({ attempt: 3, lostAttempts: 0 });
});

test('whatever events come, a job is unchanged or legally changed, and never ends twice', () => {
  const events = fc.oneof(
    fc.constantFrom(...STATES).map((state) => become(state)),
    fc.nat(3).map(finished),
    fc.constant(planned(4)),
    fc.constant(JobEvent.fromPartial({ event: { $case: 'progress', value: { layer: 1, step: 'collect' } } })),
    fc.constant(JobEvent.fromPartial({ event: { $case: 'nodeLost', value: { address: 'a:1' } } })),
    fc.constant(JobEvent.fromPartial({ event: { $case: 'snapshotFailed', value: { layer: 1 } } })),
    fc.constant(JobEvent.fromPartial({})),
  );
  fc.assert(
    fc.property(fc.array(events, { maxLength: 30 }), (sequence) => {
      let job = Object.freeze(jobIn(QUEUED));
      for (const event of sequence) {
        const before = job;
        try {
          job = Object.freeze(applyJobEvent(before, event));
        } catch (error) {
          expect(error).toBeInstanceOf(SecateurError);
          continue;
        }
        if (event.event?.$case === 'stateChanged') expect(ALLOWED.has(`${before.state}>${job.state}`)).toBe(true);
        else expect(job.state).toBe(before.state);
        expect(job.finishedAt !== undefined).toBe(hasEnded(job.state));
        expect(job.id).toBe('job');
      }
    }),
  );
});

test('only three states are ends', () => {
  expect(STATES.filter(hasEnded)).toEqual([SUCCEEDED, FAILED, CANCELLED]);
});
