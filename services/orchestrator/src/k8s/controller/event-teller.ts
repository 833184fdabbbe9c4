import { hasEnded } from '@secateur/core';
import type { Caller } from '@secateur/rpc';
import type { Job } from '@secateur/proto/job';
import type { Logger } from 'pino';
import type { JobManager } from '../../jobs/job-manager.js';
import { toDate } from '../../store/job-record.js';
import { EventRecorder } from './event-recorder.js';
import { EventSeries } from './event-series.js';
import { JobNarrator, tellOfAcceptance, type Occurrence } from './prune-job-events.js';
import { identityOf, type PruneJob, type PruneJobStatus } from './prune-job.js';

/**
 * What happened longer ago is not told any more. Within it an orchestrator that begins to lead tells of what the one before may not have told;
 * Kubernetes keeps Events longer, so those that were told are still there and not told twice.
 */
const RECENT_MS = 600_000;

export interface EventTellerOptions {
  readonly jobs: Pick<JobManager, 'eventsAfter'>;
  readonly identity: string;
  readonly logger: Logger;
}

/** One PruneJob, as far as it was told of. */
interface Told {
  readonly series: EventSeries;
  narrator: JobNarrator | undefined;
  /** When the job was made that is told of: one that is made anew under its id begins anew. */
  createdAtMs: number;
}

/** Tells of PruneJobs by Events: what happens in their jobs, and why they have none. Never fails, and waits for nothing but the job store. */
export class EventTeller {
  /** By uid. */
  private readonly told = new Map<string, Told>();
  private readonly recorder: EventRecorder;

  constructor(
    private readonly options: EventTellerOptions,
    signal: AbortSignal,
  ) {
    this.recorder = new EventRecorder(options, signal);
  }

  /** Tells what has happened in the job of a PruneJob since it was told of. */
  async tellOfJob(object: PruneJob, caller: Caller, job: Job): Promise<void> {
    const { jobs, logger } = this.options;
    const { uid } = identityOf(object);
    if (!this.told.has(uid) && isLongOver(job)) return;
    try {
      const told = this.toldOf(object);
      const createdAtMs = job.createdAt === undefined ? 0 : toDate(job.createdAt).getTime();
      if (told.narrator === undefined || told.createdAtMs !== createdAtMs) {
        told.narrator = new JobNarrator(object.spec.output);
        told.createdAtMs = createdAtMs;
      }
      const { narrator } = told;
      for (;;) {
        const events = await jobs.eventsAfter(caller, job.id, narrator.lastSequence);
        for (const occurrence of narrator.read(job, events)) this.tell(object, told, occurrence);
        if (events.length === 0) return;
      }
    } catch (error) {
      logger.warn({ pruneJob: uid, jobId: job.id, err: error }, 'the events of a PruneJob could not be told; they are told later');
    }
  }

  /** Tells why a PruneJob has no job, where its status says so and did not before. */
  tellOfStatus(object: PruneJob, status: PruneJobStatus): void {
    const occurrence = tellOfAcceptance(status, object.status, new Date());
    if (occurrence !== undefined) this.tell(object, this.toldOf(object), occurrence);
  }

  /** The object is gone. */
  forget(object: PruneJob): void {
    this.told.delete(identityOf(object).uid);
  }

  private toldOf(object: PruneJob): Told {
    const { name, uid } = identityOf(object);
    let told = this.told.get(uid);
    if (told === undefined) {
      told = { series: new EventSeries({ name, uid }), narrator: undefined, createdAtMs: 0 };
      this.told.set(uid, told);
    }
    return told;
  }

  private tell(object: PruneJob, { series }: Told, occurrence: Occurrence): void {
    const event = series.add(occurrence);
    if (Date.now() - event.lastTime.getTime() < RECENT_MS) this.recorder.record(identityOf(object), event);
  }
}

/** Its events need not even be read. */
function isLongOver({ state, finishedAt }: Job): boolean {
  return hasEnded(state) && finishedAt !== undefined && Date.now() - toDate(finishedAt).getTime() > RECENT_MS;
}
