import { setTimeout as sleep } from 'node:timers/promises';
import type { AuditActions } from '@secateur/access';
import { resolveInsideRoots } from '@secateur/checkpoint';
import { hasEnded, SecateurError } from '@secateur/core';
import { JobState, type Job } from '@secateur/proto/job';
import type { Logger } from 'pino';
import type { OutputPlace } from '../output/output-place.js';
import type { OutputPlaces } from '../output/output-places.js';
import { isBeingRemoved, keyOf, toDate, type JobRecord } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import { beingRemoved, notEnded } from '../store/store-errors.js';
import type { Tenants } from './tenants.js';

const SWEEP_EVERY_MS = 60_000;
const SWEPT_AT_ONCE = 100;
/** When a removal that failed, or whose process is gone, is tried again. */
const RETRY_AFTER_MS = 600_000;

export interface JobRemoverOptions {
  readonly store: JobStore;
  readonly outputs: OutputPlaces;
  readonly tenants: Tenants;
  readonly audit: AuditActions;
  readonly logger: Logger;
}

/** A job that is only this process's to remove. */
interface Claim {
  readonly record: JobRecord;
  /** How long it is kept when it cannot be removed. */
  readonly keptForMs: number;
}

/**
 * Forgets jobs that have ended, when somebody asks to and when their time to live is over. Their files go first and the job last: as long as
 * there are files, there is a job that tells of them.
 */
export class JobRemover {
  private readonly sweeper = new AbortController();

  constructor(private readonly options: JobRemoverOptions) {}

  /** Begins to look for jobs whose time to live is over. */
  start(): void {
    void this.sweep();
  }

  stop(): void {
    this.sweeper.abort();
  }

  /** NOT_FOUND, FAILED_PRECONDITION when it has not ended, and what `check` throws about the job; it is as it was when its files cannot be removed. */
  async remove(id: string, deleteOutput: boolean, check: (record: JobRecord) => void): Promise<void> {
    await this.finish(await this.claim(id, check), deleteOutput);
  }

  private async sweep(): Promise<void> {
    const { store, logger } = this.options;
    const { signal } = this.sweeper;
    while (!signal.aborted) {
      try {
        for (const { job } of await store.expired(SWEPT_AT_ONCE)) {
          // One that cannot be removed keeps no other.
          await this.expire(job).catch((error: unknown) => {
            logger.warn({ jobId: job.id, err: error }, 'a job whose time to live is over could not be removed; it is tried again');
          });
        }
      } catch (error) {
        logger.warn({ err: error }, 'jobs whose time to live is over could not be looked for');
      }
      await sleep(SWEEP_EVERY_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  private async expire({ id, tenant, spec }: Job): Promise<void> {
    const { audit, logger } = this.options;
    let claim: Claim;
    try {
      claim = await this.claim(id, () => undefined);
    } catch (error) {
      // Another orchestrator was first, or it goes on.
      if (error instanceof SecateurError && (error.reason === 'NOT_FOUND' || error.reason === 'FAILED_PRECONDITION')) return;
      throw error;
    }
    const action = { caller: { name: 'time-to-live', tenant }, method: 'DeleteJob', jobId: id } as const;
    await audit(action, () => this.finish(claim, spec?.deleteOutput === true));
    logger.info({ jobId: id }, 'job forgotten: its time to live is over');
  }

  /** From here on nobody resumes the job, and nobody else removes it; when this process goes, the sweep of another one does so later. */
  private async claim(id: string, check: (record: JobRecord) => void): Promise<Claim> {
    let keptForMs = RETRY_AFTER_MS;
    const claimed = await this.options.store.change(id, (record, now) => {
      check(record);
      if (!hasEnded(record.job.state)) throw notEnded(id);
      const { expiresAt } = record.job;
      const leftMs = expiresAt === undefined ? 0 : toDate(expiresAt).getTime() - now.getTime();
      if (isBeingRemoved(record) && leftMs > 0) throw beingRemoved(id);
      keptForMs = Math.max(leftMs, RETRY_AFTER_MS);
      return { wish: 'cancel', keptForMs: RETRY_AFTER_MS };
    });
    return { record: claimed, keptForMs };
  }

  private async finish({ record, keptForMs }: Claim, deleteOutput: boolean): Promise<void> {
    const { store } = this.options;
    const { job } = record;
    try {
      await this.removeFiles(job, deleteOutput);
    } catch (error) {
      // Where that fails too, the claim runs out.
      await store.change(job.id, () => ({ wish: 'run', keptForMs })).catch(() => undefined);
      throw error;
    }
    await store.remove(keyOf(record));
  }

  private async removeFiles(job: Job, deleteOutput: boolean): Promise<void> {
    const place = await this.placeOf(job);
    if (job.state !== JobState.SUCCEEDED) await place?.removeUnfinished(job.id);
    else if (deleteOutput) await place?.remove();
  }

  /** Where the files of a job are; undefined when it has none, or they are not its own any more. */
  private async placeOf({ id, spec, tenant }: Job): Promise<OutputPlace | undefined> {
    const { store, outputs, tenants, logger } = this.options;
    if (spec?.kind?.$case !== 'prune') return undefined;
    let output: string;
    try {
      // The folders may have been moved or linked elsewhere since.
      output = await resolveInsideRoots(spec.kind.value.output, tenants.of(tenant).roots);
    } catch (error) {
      if (!(error instanceof SecateurError) || error.reason !== 'PATH_NOT_ALLOWED') throw error;
      logger.warn({ jobId: id, message: error.message }, 'what a job has left is not removed with it: it lies outside of the roots now');
      return undefined;
    }
    // Another job may have taken the folder over.
    return (await store.isBeingWritten(output)) ? undefined : outputs.at(output);
  }
}
