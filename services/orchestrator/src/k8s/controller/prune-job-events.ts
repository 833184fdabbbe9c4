import { hasEnded, isBegun } from '@secateur/core';
import { JobState, type Job, type JobEvent, type JobEvent_AttemptStarted, type JobEvent_StateChanged } from '@secateur/proto/job';
import { toDate } from '../../store/job-record.js';
import type { PruneJobStatus } from './prune-job.js';

interface Kind {
  readonly type: 'Normal' | 'Warning';
  /** What was being done; Kubernetes asks for a word. */
  readonly action: string;
}

/** All that is told of a PruneJob by Events. Programs may rely on these words, and docs/operations.md explains them. */
export const EVENT_KINDS = {
  JobCreated: { type: 'Normal', action: 'Create' },
  JobStarted: { type: 'Normal', action: 'Start' },
  JobPlanned: { type: 'Normal', action: 'Plan' },
  Suspended: { type: 'Normal', action: 'Suspend' },
  Resumed: { type: 'Normal', action: 'Resume' },
  JobRequeued: { type: 'Normal', action: 'Run' },
  JobSucceeded: { type: 'Normal', action: 'Run' },
  JobCancelled: { type: 'Normal', action: 'Cancel' },
  JobFailed: { type: 'Warning', action: 'Run' },
  AttemptFailed: { type: 'Warning', action: 'Run' },
  OrchestratorLost: { type: 'Warning', action: 'Run' },
  NodeLost: { type: 'Warning', action: 'Run' },
  SnapshotFailed: { type: 'Warning', action: 'Run' },
  SpecRefused: { type: 'Warning', action: 'Accept' },
  TooManyJobs: { type: 'Warning', action: 'Accept' },
  WaitingForOrchestrator: { type: 'Warning', action: 'Accept' },
} as const satisfies Readonly<Record<string, Kind>>;

type EventReason = keyof typeof EVENT_KINDS;

/** Something that users want to know. */
export interface Occurrence {
  readonly reason: EventReason;
  readonly note: string;
  readonly time: Date;
}

/** What is told of one job, from the beginning: the same for the same events, whoever reads them. */
export class JobNarrator {
  /** Of the last event that was read. */
  private sequence = 0;
  private state: JobState = JobState.QUEUED;
  private isCreated = false;

  constructor(private readonly output: string) {}

  get lastSequence(): number {
    return this.sequence;
  }

  /** What there is to tell of a job and the events that follow those before. */
  read({ id, createdAt }: Pick<Job, 'id' | 'createdAt'>, events: readonly JobEvent[]): Occurrence[] {
    const occurrences: Occurrence[] = [];
    if (!this.isCreated && createdAt !== undefined)
      occurrences.push({ reason: 'JobCreated', note: `Job ${id} waits for its turn.`, time: toDate(createdAt) });
    this.isCreated = true;
    for (const [index, event] of events.entries()) {
      const told = this.tellOf(event.event, events[index + 1]?.event);
      if (told !== undefined && event.time !== undefined) occurrences.push({ ...told, time: toDate(event.time) });
      if (event.event?.$case === 'stateChanged') this.state = event.event.value.state;
      this.sequence = event.sequence;
    }
    return occurrences;
  }

  private tellOf(event: JobEvent['event'], next: JobEvent['event']): Omit<Occurrence, 'time'> | undefined {
    switch (event?.$case) {
      case 'stateChanged':
        return this.tellOfState(event.value, next);
      case 'attemptStarted':
        return tellOfAttempt(event.value);
      case 'planned': {
        const { layers, resumedLayers, samples, sequenceLength } = event.value;
        const done = resumedLayers === 0 ? '' : ` ${resumedLayers} of the blocks are done already.`;
        return { reason: 'JobPlanned', note: `${layers} blocks, ${samples} samples of up to ${sequenceLength} tokens.${done}` };
      }
      case 'nodeLost': {
        const { name, address, reason } = event.value;
        return {
          reason: 'NodeLost',
          note: `Node ${name} (${address}) is no longer used; its work goes to the nodes that are left: ${reason}`,
        };
      }
      case 'snapshotFailed': {
        const { layer, reason } = event.value;
        return {
          reason: 'SnapshotFailed',
          note: `The hidden states after ${layer} blocks are not kept; the job goes on without: ${reason}`,
        };
      }
      case 'progress':
      case 'layerFinished':
      case 'nodeJoined':
      case undefined:
        return undefined;
    }
  }

  private tellOfState({ state, error }: JobEvent_StateChanged, next: JobEvent['event']): Omit<Occurrence, 'time'> | undefined {
    switch (state) {
      case JobState.PAUSED:
        return { reason: 'Suspended', note: 'The job is paused; the blocks that are done are kept.' };
      case JobState.SUCCEEDED:
        return { reason: 'JobSucceeded', note: `The pruned checkpoint is ${this.output}.` };
      case JobState.FAILED:
        return { reason: 'JobFailed', note: error?.message ?? 'The job failed.' };
      case JobState.CANCELLED:
        return { reason: 'JobCancelled', note: 'The job was cancelled.' };
      case JobState.QUEUED: {
        if (error !== undefined) return { reason: 'AttemptFailed', note: `The job is tried again, as an attempt failed: ${error.message}` };
        if (this.state === JobState.PAUSED) return { reason: 'Resumed', note: 'The job is no longer paused; it waits for its turn.' };
        if (hasEnded(this.state)) return { reason: 'Resumed', note: 'The job had ended and is to go on; it waits for its turn.' };
        // The attempt that found its orchestrator gone tells of that.
        if (!isBegun(this.state) || (next?.$case === 'attemptStarted' && next.value.afterLoss)) return undefined;
        return { reason: 'JobRequeued', note: 'Its orchestrator stopped; the job goes on elsewhere after the blocks that are done.' };
      }
      default:
        // What planning and running are about is told by other events.
        return undefined;
    }
  }
}

function tellOfAttempt({ attempt, orchestrator, afterLoss }: JobEvent_AttemptStarted): Omit<Occurrence, 'time'> {
  return afterLoss
    ? {
        reason: 'OrchestratorLost',
        note: `The orchestrator that ran the job is gone; attempt ${attempt} goes on with it on ${orchestrator}.`,
      }
    : { reason: 'JobStarted', note: `Attempt ${attempt} begins on ${orchestrator}.` };
}

/** Why there is no job, where a status says so and the one before did not. */
export function tellOfAcceptance(status: PruneJobStatus, previous: PruneJobStatus | undefined, now: Date): Occurrence | undefined {
  const accepted = acceptanceOf(status);
  const before = acceptanceOf(previous);
  if (accepted === undefined || accepted.status === 'True') return undefined;
  const { reason, message, observedGeneration } = accepted;
  if (before?.reason === reason && before.observedGeneration === observedGeneration) return undefined;
  return isEventReason(reason) ? { reason, note: message, time: now } : undefined;
}

function acceptanceOf(status: PruneJobStatus | undefined) {
  return status?.conditions.find(({ type }) => type === 'Accepted');
}

function isEventReason(reason: string): reason is EventReason {
  return Object.hasOwn(EVENT_KINDS, reason);
}
