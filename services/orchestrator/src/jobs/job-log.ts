import { EventEmitter, once } from 'node:events';
import { applyJobEvent, hasEnded, throwIfCancelled } from '@secateur/core';
import type { Job, JobEvent } from '@secateur/proto/job';

/** What happened in a job, in order, for any number of watchers. The job's present state is always the sum of its events. */
export class JobLog {
  private readonly events: JobEvent[] = [];
  private readonly appended = new EventEmitter();

  constructor(private current: Job) {
    this.appended.setMaxListeners(0);
  }

  get job(): Job {
    return this.current;
  }

  append(event: NonNullable<JobEvent['event']>): void {
    const entry: JobEvent = { sequence: this.events.length + 1, time: now(), event };
    this.current = applyJobEvent(this.current, entry);
    this.events.push(entry);
    this.appended.emit('event');
  }

  /** All events after a sequence number, those to come too, until the job has ended. */
  async *watch(afterSequence: number, signal: AbortSignal): AsyncGenerator<JobEvent, void> {
    let next = Math.max(0, afterSequence);
    for (;;) {
      while (next < this.events.length) yield this.events[next++]!;
      if (hasEnded(this.current.state)) return;
      await once(this.appended, 'event', { signal }).catch((error: unknown) => {
        throwIfCancelled(signal);
        throw error;
      });
    }
  }
}

export function now(): { seconds: number; nanos: number } {
  const milliseconds = Date.now();
  return { seconds: Math.floor(milliseconds / 1000), nanos: (milliseconds % 1000) * 1_000_000 };
}
