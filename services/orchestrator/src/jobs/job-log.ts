import { setTimeout as sleep } from 'node:timers/promises';
import { SecateurError } from '@secateur/core';
import { requireLease, type JobChange, type JobRecord, type NewEvent } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import type { JobLease } from './job-lease.js';

/** Events that one transaction stores. */
const MAXIMUM_BATCH = 500;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 1_000;

/**
 * Stores what happens in a job that this process runs. Events are stored in the order they came, together where they come faster than the
 * store takes them; a store that cannot be reached is tried again for as long as the lease lasts. Events that it does not take for another
 * reason end the lease: nothing that comes after them could be stored.
 */
export class JobLog {
  private readonly pending: NewEvent[] = [];
  private storing: Promise<void> = Promise.resolve();
  private scheduled = false;
  private sequence: number;

  constructor(
    private readonly store: JobStore,
    { sequence }: JobRecord,
    private readonly lease: JobLease,
    private readonly onStored: (jobId: string) => void,
  ) {
    this.sequence = sequence;
  }

  append(event: NewEvent): void {
    this.pending.push(event);
    if (this.scheduled) return;
    this.scheduled = true;
    // What the lease was lost by stops the work; who flushes is told as well.
    this.storing = this.storing.then(() => this.storePending());
    this.storing.catch(() => undefined);
  }

  /** Resolves when all events are stored. Throws what the lease was lost by. */
  async flush(): Promise<void> {
    await this.storing;
  }

  /**
   * Stores what is waiting and a change, or what that becomes by the record as it is then: as many events. Throws what the lease was lost by, and what
   * keeps the change alone from being stored.
   */
  async commit(change: JobChange, revise?: (present: JobRecord) => JobChange): Promise<JobRecord> {
    await this.flush();
    return this.apply(change, revise);
  }

  private async storePending(): Promise<void> {
    this.scheduled = false;
    while (this.pending.length > 0) {
      const batch = this.pending.slice(0, MAXIMUM_BATCH);
      await this.apply({ events: batch }).catch((error: unknown) => this.stopBy(error));
      this.pending.splice(0, batch.length);
    }
  }

  /** The work would go on for hours, and none of it be told to anybody. */
  private stopBy(cause: unknown): never {
    const { jobId } = this.lease;
    const error =
      cause instanceof SecateurError ? cause : new SecateurError('INTERNAL', `Events of job ${jobId} could not be stored.`, { cause });
    this.lease.lose(error);
    throw error;
  }

  private async apply(change: JobChange, revise: (present: JobRecord) => JobChange = () => change): Promise<JobRecord> {
    const { jobId, token } = this.lease;
    const before = this.sequence;
    const after = before + (change.events?.length ?? 0);
    for (let delayMs = FIRST_RETRY_MS; ; delayMs = Math.min(delayMs * 2, LAST_RETRY_MS)) {
      this.lease.assertHeld();
      try {
        const record = await this.store.change(jobId, (present, now) => {
          // An attempt whose answer was lost may have been stored; nobody else adds events to a job that is leased.
          if (present.sequence === after && after > before) return {};
          requireLease(present, token, now);
          return revise(present);
        });
        this.sequence = after;
        this.onStored(jobId);
        return record;
      } catch (error) {
        if (!(error instanceof SecateurError)) throw error;
        if (error.reason === 'LEASE_LOST' || error.reason === 'NOT_FOUND') {
          this.lease.lose(error);
          throw error;
        }
        if (error.reason !== 'UNAVAILABLE') throw error;
      }
      await sleep(delayMs);
    }
  }
}
