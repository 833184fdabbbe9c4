import { isBegun, SecateurError } from '@secateur/core';
import { JobState, type Job } from '@secateur/proto/job';
import { GetReportResponse } from '@secateur/proto/pruning_service';
import type { Logger } from 'pino';
import type { OutputPlace } from '../output/output-place.js';
import type { OutputPlaces } from '../output/output-places.js';
import { activeOutput, requireLease, type JobChange, type JobRecord, type Wish } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import type { JobFeed } from './job-feed.js';
import { JobLease } from './job-lease.js';
import { JobLog } from './job-log.js';
import { becomes } from './state-change.js';
import type { Tenants } from './tenants.js';

/** How often the store is asked for work and for what callers want of running jobs. */
const POLL_EVERY_MS = 250;
/** A store that cannot be reached is asked less often. */
const RETRY_AFTER_MS = 1_000;
/** A job that takes its orchestrator down so often without finishing a block is at fault itself. */
const MAXIMUM_LOST_ATTEMPTS = 10;
const FIRST_BACKOFF_MS = 5_000;
const LAST_BACKOFF_MS = 300_000;

export type Report = NonNullable<GetReportResponse['report']>;

/** A job that this process holds. */
export interface LeasedJob {
  readonly id: string;
  readonly job: Job;
  readonly lease: JobLease;
  readonly log: JobLog;
}

export interface JobRunnerOptions {
  readonly store: JobStore;
  readonly feed: JobFeed;
  readonly logger: Logger;
  /** Name of this process, which no other orchestrator of the store has. */
  readonly name: string;
  /** Jobs this process runs at once. */
  readonly slots: number;
  readonly leaseMs: number;
  readonly tenants: Tenants;
  readonly outputs: OutputPlaces;
  /** How long a job that has ended is kept. */
  readonly keptForMs: (job: Job) => number;
  /** Computes a job. The signal of the lease stops it. */
  readonly work: (leased: LeasedJob) => Promise<Report>;
}

interface Running {
  readonly leased: LeasedJob;
  readonly ended: Promise<void>;
}

/** Leases jobs and runs them, a few at a time. */
export class JobRunner {
  private readonly running = new Map<string, Running>();
  private timer: NodeJS.Timeout | undefined;
  private polling: Promise<void> = Promise.resolve();
  private stopping = false;

  constructor(private readonly options: JobRunnerOptions) {}

  start(): void {
    this.schedule(0);
  }

  /** Looks for work, and for what callers want, at once. */
  wake(): void {
    if (!this.stopping && this.timer !== undefined) this.schedule(0);
  }

  /** Stops all jobs, which go back to the queue; what they finished stays on disk for the next attempt. */
  async stop(): Promise<void> {
    this.stopping = true;
    clearTimeout(this.timer);
    this.timer = undefined;
    await this.polling;
    for (const { leased } of this.running.values()) leased.lease.stop('shutdown');
    // Leases are kept until the jobs have let go.
    const keepingUp = setInterval(() => void this.keepLeases().catch(() => undefined), POLL_EVERY_MS);
    await Promise.all([...this.running.values()].map(({ ended }) => ended));
    clearInterval(keepingUp);
  }

  private schedule(delayMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.polling = this.polling.then(() => this.poll());
    }, delayMs);
  }

  private async poll(): Promise<void> {
    let nextMs = POLL_EVERY_MS;
    try {
      await this.heedWishes();
      await this.keepLeases();
      while (!this.stopping && this.running.size < this.options.slots && (await this.lease()));
    } catch (error) {
      this.options.logger.warn({ err: error }, 'the job store could not be asked');
      nextMs = RETRY_AFTER_MS;
    }
    if (!this.stopping) this.schedule(nextMs);
  }

  private async heedWishes(): Promise<void> {
    if (this.running.size === 0) return;
    for (const { id, token, wish } of await this.options.store.held(this.options.name)) {
      const lease = this.running.get(id)?.leased.lease;
      if (wish !== 'run' && lease?.token === token) lease.stop(wish);
    }
  }

  private async keepLeases(): Promise<void> {
    const now = performance.now();
    await Promise.all(
      [...this.running.values()]
        .filter(({ leased: { lease } }) => lease.isDue(now) && !lease.isLost)
        .map(async ({ leased: { id, lease } }) => {
          try {
            await this.options.store.change(id, (record, storeTime) => {
              requireLease(record, lease.token, storeTime);
              return { lease: { forMs: this.options.leaseMs } };
            });
            lease.renewed(now);
          } catch (error) {
            if (!(error instanceof SecateurError) || error.reason === 'UNAVAILABLE') throw error;
            lease.lose(error);
          }
        }),
    ).finally(() => {
      for (const { leased } of this.running.values()) leased.lease.loseIfOver();
    });
  }

  /** Leases and begins the next job; false when there is none. */
  private async lease(): Promise<boolean> {
    const { store, name, leaseMs, tenants } = this.options;
    const requestedAt = performance.now();
    const record = await store.acquire(name, leaseMs, tenants.runningLimits);
    if (record?.lease === undefined) return false;
    const { id } = record.job;
    const lease = new JobLease(id, record.lease.token, leaseMs, requestedAt);
    const log = new JobLog(store, record, lease, (jobId) => this.options.feed.notify(jobId));
    const leased: LeasedJob = { id, job: record.job, lease, log };
    this.running.set(id, { leased, ended: this.runAfter(this.running.get(id)?.ended, record, leased) });
    return true;
  }

  /** An attempt of this process that lost its lease may still be about to stop. */
  private async runAfter(earlier: Promise<void> | undefined, record: JobRecord, leased: LeasedJob): Promise<void> {
    await earlier;
    await this.run(record, leased);
    if (this.running.get(leased.id)?.leased === leased) this.running.delete(leased.id);
    this.wake();
  }

  private async run(record: JobRecord, leased: LeasedJob): Promise<void> {
    const { logger } = this.options;
    const { id, lease } = leased;
    try {
      const change = await this.attempt(record, leased);
      const ending: JobChange = { wish: 'run', lease: 'end', ...change };
      await leased.log.commit(ending, (present) => heedWish(ending, present.wish, this.options.keptForMs(record.job)));
    } catch (error) {
      if (isOfLostJob(error)) logger.warn({ jobId: id, err: error }, 'job lost; another attempt goes on with it');
      else logger.error({ jobId: id, err: error }, 'what became of a job could not be stored; another attempt goes on with it');
      lease.stop('shutdown');
    }
  }

  /** Runs a job and says what became of it. */
  private async attempt(record: JobRecord, leased: LeasedJob): Promise<JobChange> {
    const { logger, name, keptForMs, outputs, work } = this.options;
    const { job, wish } = record;
    const { id, lease, log } = leased;
    const kept = { keptForMs: keptForMs(job) };
    const afterLoss = isBegun(job.state);
    if (afterLoss) log.append(becomes(JobState.QUEUED));
    if (wish === 'cancel') return { ...kept, events: [becomes(JobState.CANCELLED)] };
    if (wish === 'pause') return { events: [becomes(JobState.PAUSED)] };
    if (afterLoss && job.lostAttempts + 1 >= MAXIMUM_LOST_ATTEMPTS) {
      const message = `${MAXIMUM_LOST_ATTEMPTS} orchestrators in a row were lost while they ran the job. Look why they ended, then resume it.`;
      return { ...kept, events: [becomes(JobState.FAILED, new SecateurError('UNAVAILABLE', message))] };
    }
    log.append({ $case: 'attemptStarted', value: { attempt: job.attempt + 1, orchestrator: name, afterLoss } });
    log.append(becomes(JobState.PLANNING));
    logger.info({ jobId: id, attempt: job.attempt + 1 }, 'job begins');
    try {
      const published = await publishedPlace(record, outputs);
      if (published !== undefined) {
        await published.removeLeftovers();
        log.append(becomes(JobState.RUNNING));
        return { ...kept, events: [becomes(JobState.SUCCEEDED)] };
      }
      const report = await work(leased);
      logger.info({ jobId: id }, 'job succeeded');
      return { ...kept, events: [becomes(JobState.SUCCEEDED)], report: encodeReport(report) };
    } catch (error) {
      lease.assertHeld();
      switch (lease.signal.reason) {
        case 'cancel':
          logger.info({ jobId: id }, 'job cancelled');
          return { ...kept, events: [becomes(JobState.CANCELLED)] };
        case 'pause':
          logger.info({ jobId: id }, 'job paused');
          return { events: [becomes(JobState.PAUSED)] };
        case 'shutdown':
          logger.info({ jobId: id }, 'job goes back to the queue');
          return { events: [becomes(JobState.QUEUED)] };
      }
      return { ...kept, ...this.afterFailure(job, error) };
    }
  }

  private afterFailure(job: Job, error: unknown): JobChange {
    const { logger } = this.options;
    const jobId = job.id;
    const told = explain(error);
    const failures = job.failedAttempts + 1;
    // What a caller can understand and mend needs no stack in our log.
    if (told === error && told.reason !== 'INTERNAL') logger.warn({ jobId, reason: told.reason, message: told.message }, 'job failed');
    else logger.error({ jobId, err: error }, 'job failed');
    if (told.retryable && failures < (job.spec?.maximumAttempts || 1)) {
      const delayMs = Math.min(FIRST_BACKOFF_MS * 2 ** (failures - 1), LAST_BACKOFF_MS);
      return { events: [becomes(JobState.QUEUED, told)], delayMs };
    }
    return { events: [becomes(JobState.FAILED, told)] };
  }
}

/** Whether the job is not this process's any more; any other error is of something that could not be stored. */
function isOfLostJob(error: unknown): boolean {
  return error instanceof SecateurError && (error.reason === 'LEASE_LOST' || error.reason === 'NOT_FOUND');
}

export function encodeReport(report: Report): Uint8Array {
  return GetReportResponse.encode({ report }).finish();
}

/** Where an attempt that was lost had stored the report and given the output its name: nothing is left to do but to say so. */
async function publishedPlace(record: JobRecord, outputs: OutputPlaces): Promise<OutputPlace | undefined> {
  const output = activeOutput(record);
  if (!record.hasReport || output === undefined) return undefined;
  const place = outputs.at(output);
  return (await place.isPublished()) ? place : undefined;
}

/** A job that would go back to the queue is paused or cancelled instead, where that was wanted while its attempt came to its end. */
function heedWish(change: JobChange, wish: Wish, keptForMs: number): JobChange {
  const events = change.events ?? [];
  const last = events.at(-1);
  if (wish === 'run' || last?.$case !== 'stateChanged' || last.value.state !== JobState.QUEUED) return change;
  const wanted = becomes(wish === 'cancel' ? JobState.CANCELLED : JobState.PAUSED);
  return { ...change, events: [...events.slice(0, -1), wanted], keptForMs };
}

/** What callers are told of an error; defects keep their text in the log. */
function explain(error: unknown): SecateurError {
  return error instanceof SecateurError
    ? error
    : new SecateurError('INTERNAL', "A defect stopped the job; the orchestrator's log has the details.");
}
