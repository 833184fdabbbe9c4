import { JobState, jobStateToJSON, type Job, type JobEvent } from '@secateur/proto/job';
import { SecateurError } from '../errors.js';

const NEXT_STATES: ReadonlyMap<JobState, readonly JobState[]> = new Map<JobState, readonly JobState[]>([
  [JobState.QUEUED, [JobState.PLANNING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED]],
  // Back to the queue: its orchestrator stopped or is gone, or another attempt follows one that failed.
  [JobState.PLANNING, [JobState.RUNNING, JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED]],
  [JobState.RUNNING, [JobState.SUCCEEDED, JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED]],
  [JobState.PAUSED, [JobState.QUEUED, JobState.CANCELLED]],
  [JobState.SUCCEEDED, []],
  [JobState.FAILED, [JobState.QUEUED]],
  [JobState.CANCELLED, [JobState.QUEUED]],
]);

/** Whether nothing more happens in a job unless it is resumed or created again. */
export function hasEnded(state: JobState): boolean {
  return state === JobState.SUCCEEDED || state === JobState.FAILED || state === JobState.CANCELLED;
}

/** Whether an orchestrator works on a job, or did when it was last heard of. */
export function isBegun(state: JobState): boolean {
  return state === JobState.PLANNING || state === JobState.RUNNING;
}

/** The job after an event. Throws FAILED_PRECONDITION for a change of state that cannot happen. */
export function applyJobEvent(job: Job, { event, time }: JobEvent): Job {
  switch (event?.$case) {
    case 'stateChanged': {
      const { state, error } = event.value;
      if (NEXT_STATES.get(job.state)?.includes(state) !== true) {
        throw new SecateurError(
          'FAILED_PRECONDITION',
          `Job ${job.id} is ${describeState(job.state)} and cannot become ${describeState(state)}.`,
        );
      }
      return { ...job, ...failuresAfter(job, event.value), state, error, finishedAt: hasEnded(state) ? time : undefined };
    }
    case 'attemptStarted': {
      const { attempt, afterLoss } = event.value;
      return { ...job, attempt, lostAttempts: job.lostAttempts + (afterLoss ? 1 : 0) };
    }
    case 'planned': {
      const { layers, resumedLayers } = event.value;
      return { ...job, layers, resumedLayers, finishedLayers: resumedLayers };
    }
    case 'layerFinished':
      return { ...job, finishedLayers: event.value.layer + 1, lostAttempts: 0 };
    case 'progress':
    case 'nodeJoined':
    case 'nodeLost':
    case 'snapshotFailed':
    case undefined:
      return job;
  }
}

/** A caller who makes a job go on gives it all its attempts again. */
function failuresAfter(
  { state: before, failedAttempts, lostAttempts }: Job,
  { state, error }: { readonly state: JobState; readonly error: Job['error'] },
): Pick<Job, 'failedAttempts' | 'lostAttempts'> {
  if (state === JobState.QUEUED && !isBegun(before)) return { failedAttempts: 0, lostAttempts: 0 };
  return { failedAttempts: failedAttempts + (error === undefined ? 0 : 1), lostAttempts };
}

/** `JOB_STATE_QUEUED` → `queued`. */
function describeState(state: JobState): string {
  return jobStateToJSON(state).replace('JOB_STATE_', '').toLowerCase();
}
