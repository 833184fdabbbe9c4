import { hasEnded, isBegun, type SecateurError } from '@secateur/core';
import { JobState, type Job } from '@secateur/proto/job';
import { toDate } from '../../store/job-record.js';
import type { Condition, ConditionType, Phase, PruneJobStatus } from './prune-job.js';

const MAXIMUM_MESSAGE = 32_768;

/** Why a condition is as it is. Programs may rely on these words. */
const Reason = {
  JOB_CREATED: 'JobCreated',
  SPEC_REFUSED: 'SpecRefused',
  WAITING_FOR_ORCHESTRATOR: 'WaitingForOrchestrator',
  TOO_MANY_JOBS: 'TooManyJobs',
  SUSPENDED: 'Suspended',
  NOT_SUSPENDED: 'NotSuspended',
  NOT_STARTED: 'NotStarted',
  COMPUTING: 'Computing',
  SUCCEEDED: 'JobSucceeded',
  FAILED: 'JobFailed',
  CANCELLED: 'JobCancelled',
  NOT_FINISHED: 'NotFinished',
} as const;

const PHASES: ReadonlyMap<JobState, Phase> = new Map([
  [JobState.QUEUED, 'Queued'],
  [JobState.PLANNING, 'Planning'],
  [JobState.RUNNING, 'Running'],
  [JobState.PAUSED, 'Suspended'],
  [JobState.SUCCEEDED, 'Succeeded'],
  [JobState.FAILED, 'Failed'],
  [JobState.CANCELLED, 'Cancelled'],
]);

/** What there is to tell about a PruneJob: its job, or why it has none. */
export type Finding =
  | { readonly kind: 'job'; readonly job: Job; readonly startedAt: Date | undefined; readonly actualSparsity: number | undefined }
  | { readonly kind: 'suspended' }
  | { readonly kind: 'refused' | 'delayed'; readonly error: SecateurError };

/** The status to show; conditions keep the time at which they became what they are. */
export function statusOf(finding: Finding, generation: number, previous: PruneJobStatus | undefined, now: Date): PruneJobStatus {
  const phase = phaseOf(finding);
  const condition = (type: ConditionType, holds: boolean, reason: string, message = ''): Condition => {
    const status = holds ? 'True' : 'False';
    const before = previous?.conditions.find((known) => known.type === type);
    const lastTransitionTime = before?.status === status ? before.lastTransitionTime : toTime(now);
    return { type, status, observedGeneration: generation, lastTransitionTime, reason, message: message.slice(0, MAXIMUM_MESSAGE) };
  };
  return {
    observedGeneration: generation,
    phase,
    ...(finding.kind === 'job' ? progressOf(finding.job, finding.startedAt, finding.actualSparsity) : {}),
    conditions: [
      accepted(finding, condition),
      condition('Running', phase === 'Planning' || phase === 'Running', reasonOfRunning(phase)),
      condition('Complete', phase === 'Succeeded', phase === 'Succeeded' ? Reason.SUCCEEDED : Reason.NOT_FINISHED),
      failed(finding, phase, condition),
      condition('Suspended', phase === 'Suspended', phase === 'Suspended' ? Reason.SUSPENDED : Reason.NOT_SUSPENDED),
    ],
  };
}

/** Whether a status tells of a job that has ended. */
export function tellsOfEnd({ phase, jobId }: PruneJobStatus): boolean {
  return jobId !== undefined && (phase === 'Succeeded' || phase === 'Failed' || phase === 'Cancelled');
}

/** Whether a status tells that the spec was refused as it still is. */
export function tellsOfRefusal({ conditions, observedGeneration }: PruneJobStatus, generation: number): boolean {
  const known = conditions.find(({ type }) => type === 'Accepted');
  return observedGeneration === generation && known?.status === 'False' && known.reason === Reason.SPEC_REFUSED;
}

type MakeCondition = (type: ConditionType, holds: boolean, reason: string, message?: string) => Condition;

function phaseOf(finding: Finding): Phase {
  switch (finding.kind) {
    case 'job':
      return PHASES.get(finding.job.state) ?? 'Pending';
    case 'suspended':
      return 'Suspended';
    case 'refused':
      return 'Failed';
    case 'delayed':
      return 'Pending';
  }
}

function accepted(finding: Finding, condition: MakeCondition): Condition {
  switch (finding.kind) {
    case 'job':
      return condition('Accepted', true, Reason.JOB_CREATED);
    case 'suspended':
      return condition('Accepted', false, Reason.SUSPENDED, 'The job is created when it is no longer suspended.');
    case 'refused':
      return condition('Accepted', false, Reason.SPEC_REFUSED, describe(finding.error));
    case 'delayed': {
      const reason = finding.error.reason === 'RESOURCE_EXHAUSTED' ? Reason.TOO_MANY_JOBS : Reason.WAITING_FOR_ORCHESTRATOR;
      return condition('Accepted', false, reason, describe(finding.error));
    }
  }
}

function failed(finding: Finding, phase: Phase, condition: MakeCondition): Condition {
  if (phase === 'Cancelled') return condition('Failed', true, Reason.CANCELLED, 'Somebody cancelled the job.');
  if (phase !== 'Failed') return condition('Failed', false, phase === 'Succeeded' ? Reason.SUCCEEDED : Reason.NOT_FINISHED);
  return finding.kind === 'job'
    ? condition('Failed', true, Reason.FAILED, finding.job.error?.message)
    : condition('Failed', true, Reason.SPEC_REFUSED);
}

function reasonOfRunning(phase: Phase): string {
  switch (phase) {
    case 'Planning':
    case 'Running':
      return Reason.COMPUTING;
    case 'Pending':
    case 'Queued':
      return Reason.NOT_STARTED;
    case 'Suspended':
      return Reason.SUSPENDED;
    case 'Succeeded':
      return Reason.SUCCEEDED;
    case 'Failed':
      return Reason.FAILED;
    case 'Cancelled':
      return Reason.CANCELLED;
  }
}

function progressOf(job: Job, startedAt: Date | undefined, actualSparsity: number | undefined): Partial<PruneJobStatus> {
  const { id, attempt, finishedLayers, layers, finishedAt, state } = job;
  // Before it is planned, nobody knows of how many.
  const isPlanned = layers > 0 && (hasEnded(state) || isBegun(state) || finishedLayers > 0);
  return {
    jobId: id,
    attempt,
    ...(isPlanned ? { layersFinished: finishedLayers, layersTotal: layers, progress: `${finishedLayers}/${layers}` } : {}),
    ...(startedAt === undefined ? {} : { startedAt: toTime(startedAt) }),
    ...(finishedAt === undefined ? {} : { finishedAt: toTime(toDate(finishedAt)) }),
    ...(actualSparsity === undefined ? {} : { actualSparsity }),
  };
}

/** All that is wrong, one after the other; the names are those of the fields of the request. */
function describe({ message, violations }: SecateurError): string {
  return violations.length < 2 ? message : violations.map(({ field, description }) => `${field} ${description}`).join('; ');
}

/** Kubernetes has no parts of seconds. */
function toTime(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}
