import { JobState, jobStateToJSON, type Job, type JobEvent } from '@secateur/proto/job';
import { SecateurError } from '../errors.js';

const NEXT_STATES: ReadonlyMap<JobState, readonly JobState[]> = new Map<JobState, readonly JobState[]>([
  [JobState.QUEUED, [JobState.PLANNING, JobState.CANCELLED, JobState.FAILED]],
  [JobState.PLANNING, [JobState.RUNNING, JobState.CANCELLED, JobState.FAILED]],
  [JobState.RUNNING, [JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED]],
  [JobState.SUCCEEDED, []],
  // Creating the job again makes it go on.
  [JobState.FAILED, [JobState.QUEUED]],
  [JobState.CANCELLED, [JobState.QUEUED]],
]);

/** Whether nothing more happens in a job unless it is created again. */
export function hasEnded(state: JobState): boolean {
  return state === JobState.SUCCEEDED || state === JobState.FAILED || state === JobState.CANCELLED;
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
      return { ...job, state, error, finishedAt: hasEnded(state) ? time : undefined };
    }
    case 'planned': {
      const { layers, resumedLayers } = event.value;
      return { ...job, layers, resumedLayers, finishedLayers: resumedLayers };
    }
    case 'layerFinished':
      return { ...job, finishedLayers: event.value.layer + 1 };
    case 'progress':
    case 'nodeJoined':
    case 'nodeLost':
    case undefined:
      return job;
  }
}

/** `JOB_STATE_QUEUED` → `queued`. */
function describeState(state: JobState): string {
  return jobStateToJSON(state).replace('JOB_STATE_', '').toLowerCase();
}
