import { backoffMs } from '@secateur/core';

const FIRST_BACKOFF_MS = 200;
const LONGEST_BACKOFF_MS = 60_000;

export interface WorkQueueOptions {
  /** Does what is to be done for a key; a number asks for the key again after so many milliseconds. */
  readonly process: (key: string) => Promise<number | undefined>;
  readonly onProblem: (key: string, error: unknown) => void;
  /** Keys that are worked on at once. */
  readonly workers: number;
}

/**
 * Keys that wait to be worked on, each once however often it is added, and none by two workers at once: one that is added meanwhile is worked
 * on again afterwards. A key whose work failed waits twice as long as the time before.
 */
export class WorkQueue {
  private readonly waiting = new Set<string>();
  private readonly running = new Map<string, Promise<void>>();
  private readonly timers = new Map<string, NodeJS.Timeout>();
  private readonly failures = new Map<string, number>();
  private stopped = false;

  constructor(private readonly options: WorkQueueOptions) {}

  add(key: string): void {
    if (this.stopped) return;
    this.forgetTimer(key);
    this.waiting.add(key);
    this.startWaiting();
  }

  /** Begins nothing more, and resolves when what was begun has ended. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.waiting.clear();
    for (const key of [...this.timers.keys()]) this.forgetTimer(key);
    await Promise.all(this.running.values());
  }

  private startWaiting(): void {
    for (const key of this.waiting) {
      if (this.running.size >= this.options.workers) return;
      if (this.running.has(key)) continue;
      this.waiting.delete(key);
      this.running.set(key, this.work(key));
    }
  }

  private async work(key: string): Promise<void> {
    let againMs: number | undefined;
    try {
      againMs = await this.options.process(key);
      this.failures.delete(key);
    } catch (error) {
      const failures = (this.failures.get(key) ?? 0) + 1;
      this.failures.set(key, failures);
      againMs = backoffMs(failures, FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS);
      this.options.onProblem(key, error);
    }
    this.running.delete(key);
    if (againMs !== undefined && !this.stopped && !this.waiting.has(key)) {
      const timer = setTimeout(() => this.add(key), againMs);
      timer.unref();
      this.timers.set(key, timer);
    }
    this.startWaiting();
  }

  private forgetTimer(key: string): void {
    clearTimeout(this.timers.get(key));
    this.timers.delete(key);
  }
}
