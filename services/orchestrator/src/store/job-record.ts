import { applyJobEvent, hasEnded, isBegun } from '@secateur/core';
import { JobState, type Job, type JobEvent, type JobSpec } from '@secateur/proto/job';
import { leaseLost } from './store-errors.js';

/** What a caller wants of a job that an orchestrator runs; of one that has ended, `cancel` means that it is being removed. */
export type Wish = 'run' | 'pause' | 'cancel';

/** The right of one orchestrator to run a job, until it is over or given back. */
interface Lease {
  /** Name of the orchestrator. */
  readonly owner: string;
  /** Grows with every lease, also those of jobs that had the id before: what is written with an older one is refused. */
  readonly token: number;
  readonly expiresAt: Date;
}

/** One job and no other: an id may be taken again once its job was removed, also by another tenant. */
export interface JobKey {
  readonly id: string;
  /** As the store numbers its jobs; no two ever have the same. */
  readonly number: number;
}

export function keyOf({ job: { id }, number }: JobRecord): JobKey {
  return { id, number };
}

/** A job as it is stored. */
export interface JobRecord {
  readonly job: Job;
  /** See JobKey. */
  readonly number: number;
  /** The spec as it was given, to recognise the same request. */
  readonly requested: JobSpec;
  /** Sequence number of its last event. */
  readonly sequence: number;
  readonly wish: Wish;
  readonly lease: Lease | undefined;
  /** Whether it has a report. */
  readonly hasReport: boolean;
}

/** Whether a job that has ended is about to be forgotten: until then nothing is done with it. */
export function isBeingRemoved({ job, wish }: JobRecord): boolean {
  return hasEnded(job.state) && wish === 'cancel';
}

export type NewEvent = NonNullable<JobEvent['event']>;

/** What to do to a job, all of it or nothing. */
export interface JobChange {
  /** What happened, in order. */
  readonly events?: readonly NewEvent[];
  readonly wish?: Wish;
  /** An end gives the lease back; a number lets it last so many milliseconds from now. */
  readonly lease?: 'end' | { readonly forMs: number };
  /** Whether it goes to the end of the queue. */
  readonly requeue?: boolean;
  /** It waits at least so long before it is run. */
  readonly delayMs?: number;
  /** Encoded GetReportResponse. */
  readonly report?: Uint8Array;
  /** How long a job that ended with this change is kept. */
  readonly keptForMs?: number;
  /** How many jobs that have not ended its tenant may have; needed to make one that has ended go on, as then it is one of them again. */
  readonly maximumUnended?: number;
}

/** Throws LEASE_LOST unless the lease with that token is the job's present one and not over. */
export function requireLease({ job, lease }: JobRecord, token: number, now: Date): void {
  if (lease?.token === token && lease.expiresAt > now) return;
  throw leaseLost(job.id);
}

/** The record after a change, and the events to be stored with it. */
export function applyChange(record: JobRecord, change: JobChange, now: Date): { readonly record: JobRecord; readonly events: JobEvent[] } {
  let { job, sequence } = record;
  const events = (change.events ?? []).map((event): JobEvent => ({ sequence: ++sequence, time: toTimestamp(now), event }));
  for (const event of events) job = applyJobEvent(job, event);
  if (!hasEnded(job.state)) job = { ...job, expiresAt: undefined };
  else if (change.keptForMs !== undefined) job = { ...job, expiresAt: toTimestamp(new Date(now.getTime() + change.keptForMs)) };
  return {
    record: {
      ...record,
      job,
      sequence,
      wish: change.wish ?? record.wish,
      lease: leaseAfter(record.lease, change.lease, now),
      hasReport: record.hasReport || change.report !== undefined,
    },
    events,
  };
}

function leaseAfter(lease: Lease | undefined, change: JobChange['lease'], now: Date): Lease | undefined {
  if (change === 'end') return undefined;
  if (change === undefined || lease === undefined) return lease;
  return { ...lease, expiresAt: new Date(now.getTime() + change.forMs) };
}

/** When a job was accepted, to the millisecond. */
export function creationTime({ createdAt }: Job): Date {
  return createdAt === undefined ? new Date(0) : toDate(createdAt);
}

/** How many others its tenant may have that have not ended, where a change makes a job that had ended go on; undefined where it does not. */
export function roomToGoOn(before: JobRecord, after: JobRecord, { maximumUnended }: JobChange): number | undefined {
  if (!hasEnded(before.job.state) || hasEnded(after.job.state)) return undefined;
  if (maximumUnended === undefined)
    throw new Error(`A change that makes job ${before.job.id} go on has to say how many its tenant may have.`);
  return maximumUnended;
}

/** The folder a job writes; undefined when it writes none, or has ended and another job may write it. */
export function activeOutput({ job }: Pick<JobRecord, 'job'>): string | undefined {
  const { kind } = job.spec ?? {};
  return kind?.$case === 'prune' && !hasEnded(job.state) ? kind.value.output : undefined;
}

/** Of a job that was never planned: as many blocks as common models of 7 or 8 billion weights have. */
const EXPECTED_LAYERS = 32;

/** The blocks that are left to do of a job; none where nobody is to go on with it. */
export function pendingLayers({ state, layers, finishedLayers }: Job): number {
  if (state !== JobState.QUEUED && !isBegun(state)) return 0;
  return layers === 0 ? EXPECTED_LAYERS : layers - finishedLayers;
}

export function toTimestamp(date: Date): { seconds: number; nanos: number } {
  const milliseconds = date.getTime();
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds, nanos: (milliseconds - seconds * 1000) * 1_000_000 };
}

export function toDate({ seconds, nanos }: { readonly seconds: number; readonly nanos: number }): Date {
  return new Date(seconds * 1000 + Math.floor(nanos / 1_000_000));
}
