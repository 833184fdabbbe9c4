import { hasEnded, throwIfCancelled } from '@secateur/core';
import type { JobEvent } from '@secateur/proto/job';
import type { Logger } from 'pino';
import { keyOf, type JobKey, type JobRecord } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';

/** How often the store is asked for what other orchestrators did. */
const POLL_EVERY_MS = 250;
const PAGE = 500;
/** Events of a job that are kept at hand for its watchers. */
const MAXIMUM_TAIL = 2_000;
const HEARTBEAT_EVERY_MS = 15_000;

/** The last events of a job that somebody watches, read once for all watchers. */
interface Tail {
  readonly job: JobKey;
  watchers: number;
  /** Sequence number before the first event at hand. */
  start: number;
  events: JobEvent[];
  reading: Promise<void> | undefined;
  /** Called when there is something new, or the tail was read in vain. */
  readonly waiting: Set<() => void>;
}

/** Streams the events of jobs to any number of watchers, whichever orchestrator runs them. */
export class JobFeed {
  /** By the numbers of the jobs: who watches one that was deleted is not to follow another one that has got its id. */
  private readonly tails = new Map<number, Tail>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly store: JobStore,
    private readonly logger: Logger,
  ) {}

  /**
   * All events of a job after a sequence number, those to come too, until it has ended; undefined when nothing happened for a while. NOT_FOUND
   * when it was deleted meanwhile, also where another job has got its id.
   */
  async *watch(record: JobRecord, afterSequence: number, signal: AbortSignal): AsyncGenerator<JobEvent | undefined, void> {
    // Nobody has seen more than there is, whatever is claimed: what others are told begins where the first of them is.
    let next = Math.min(Math.max(0, afterSequence), record.sequence);
    // That it has ended is told by its last event, which may not be wanted any more.
    if (record.sequence <= next && hasEnded(record.job.state)) return;
    const tail = this.follow(keyOf(record), next);
    try {
      for (;;) {
        const events = await this.read(tail, next);
        for (const event of events) {
          next = event.sequence;
          yield event;
        }
        const last = events.at(-1);
        if (last !== undefined) {
          if (last.event?.$case === 'stateChanged' && hasEnded(last.event.value.state) && (await this.hasEndedAt(tail.job, next))) return;
          continue;
        }
        if (!(await this.somethingNew(tail, next, signal))) yield undefined;
        throwIfCancelled(signal);
      }
    } finally {
      this.leave(tail);
    }
  }

  /** Something was stored by this process. */
  notify(id: string): void {
    for (const tail of this.tails.values()) {
      // What cannot be read now is read by the next poll.
      if (tail.job.id === id) this.refresh(tail).catch(() => undefined);
    }
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private async hasEndedAt({ id, number }: JobKey, sequence: number): Promise<boolean> {
    const record = await this.store.read(id);
    return record?.number !== number || (record.sequence === sequence && hasEnded(record.job.state));
  }

  private follow(job: JobKey, start: number): Tail {
    let tail = this.tails.get(job.number);
    if (tail === undefined) {
      tail = { job, watchers: 0, start, events: [], reading: undefined, waiting: new Set() };
      this.tails.set(job.number, tail);
    }
    tail.watchers += 1;
    this.schedule();
    return tail;
  }

  private leave(tail: Tail): void {
    tail.watchers -= 1;
    if (tail.watchers === 0) this.tails.delete(tail.job.number);
  }

  private async read(tail: Tail, after: number): Promise<readonly JobEvent[]> {
    if (after < tail.start) return this.store.events(tail.job, after, PAGE);
    if (after >= endOf(tail)) await this.refresh(tail);
    return tail.events.slice(after - tail.start, after - tail.start + PAGE);
  }

  /** Reads what has come since; those who come meanwhile share the answer. */
  private refresh(tail: Tail): Promise<void> {
    tail.reading ??= this.readOn(tail).finally(() => {
      tail.reading = undefined;
    });
    return tail.reading;
  }

  private async readOn(tail: Tail): Promise<void> {
    const events = await this.store.events(tail.job, endOf(tail), PAGE);
    if (events.length === 0) return;
    tail.events.push(...events);
    const surplus = tail.events.length - MAXIMUM_TAIL;
    if (surplus > 0) {
      tail.events = tail.events.slice(surplus);
      tail.start += surplus;
    }
    for (const wake of tail.waiting) wake();
  }

  /** False when nothing new came until the next heartbeat. */
  private somethingNew(tail: Tail, next: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted || endOf(tail) > next) return Promise.resolve(true);
    return new Promise((resolve) => {
      const settle = (news: boolean): void => {
        clearTimeout(heartbeat);
        tail.waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve(news);
      };
      const wake = (): void => settle(true);
      const heartbeat = setTimeout(() => settle(false), HEARTBEAT_EVERY_MS);
      tail.waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }

  private schedule(): void {
    if (this.timer !== undefined) return;
    this.timer = setTimeout(() => {
      void this.poll().finally(() => {
        this.timer = undefined;
        if (this.tails.size > 0) this.schedule();
      });
    }, POLL_EVERY_MS);
    this.timer.unref();
  }

  private async poll(): Promise<void> {
    try {
      const sequences = await this.store.sequences([...this.tails.values()].map(({ job }) => job));
      await Promise.all(
        [...this.tails.values()].map(async (tail) => {
          const sequence = sequences.get(tail.job.number);
          if (sequence === undefined) {
            // The job is gone; its watchers find out when they read.
            for (const wake of tail.waiting) wake();
          } else if (sequence > endOf(tail)) {
            await this.refresh(tail);
          }
        }),
      );
    } catch (error) {
      this.logger.warn({ err: error }, 'the events of watched jobs could not be read');
    }
  }
}

function endOf({ start, events }: Tail): number {
  return start + events.length;
}
