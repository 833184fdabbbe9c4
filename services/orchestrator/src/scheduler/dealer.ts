import { Changes } from './changes.js';

/** A part that runs so many times as long as it would take whoever is free is begun by them too; shorter ones are not worth it. */
const PATIENCE = 1.5;
const LEAST_PATIENCE_MS = 1_000;

/** A part that somebody has begun. */
export interface TakenPart<Part> {
  readonly index: number;
  readonly part: Part;
  /** Aborts when somebody else has done the part. */
  readonly signal: AbortSignal;
}

interface Attempt<Worker> {
  readonly worker: Worker;
  readonly startedMs: number;
  readonly abort: AbortController;
}

/**
 * Parts of a work, in the order they are given out. Whoever is free takes the next one, so faster workers do more. When all have been given out,
 * one that takes much longer than it would take a worker that is free is given to that one too, and whoever is done first has done it.
 */
export class Dealer<Part, Worker extends object> {
  private readonly waiting: number[];
  private readonly running = new Map<number, Attempt<Worker>[]>();
  private readonly done = new Set<number>();
  private readonly msPerCost = new WeakMap<Worker, number>();
  /** When each worker was last done with a part: it works through those it has begun one after the other. */
  private readonly lastDoneMs = new WeakMap<Worker, number>();
  private readonly changes = new Changes();

  constructor(
    private readonly parts: readonly Part[],
    /** What a part takes, compared to others. Without it no part is given to two. */
    private readonly costOf: ((part: Part) => number) | undefined,
    private readonly leastPatienceMs = LEAST_PATIENCE_MS,
  ) {
    this.waiting = [...parts.keys()];
  }

  get finished(): boolean {
    return this.done.size === this.parts.length;
  }

  /**
   * The next part for a worker; undefined when there is nothing to do, and will be nothing, but what others are about to have done. A worker that is at
   * work on a part already gets another only as long as there is one for each of so many workers: else the others would have nothing to do sooner.
   */
  async take(worker: Worker, signal: AbortSignal, workers = 1): Promise<TakenPart<Part> | undefined> {
    while (!signal.aborted) {
      if (this.isBusy(worker) && this.waiting.length < workers) return undefined;
      const next = this.waiting.shift();
      if (next !== undefined) return this.begin(next, worker);
      const [late, dueMs] = this.mostLate(worker);
      if (late === undefined) return undefined;
      const leftMs = dueMs - performance.now();
      if (leftMs <= 0) return this.begin(late, worker);
      await this.changes.wait(leftMs, signal);
    }
    return undefined;
  }

  /** The worker is done with a part. False when somebody else was before. */
  finish({ index, part }: TakenPart<Part>, worker: Worker): boolean {
    if (this.done.has(index)) return false;
    const attempts = this.running.get(index) ?? [];
    const own = attempts.find((attempt) => attempt.worker === worker);
    if (own !== undefined && this.costOf !== undefined) {
      const now = performance.now();
      const workedMs = now - Math.max(own.startedMs, this.lastDoneMs.get(worker) ?? 0);
      this.msPerCost.set(worker, workedMs / this.costOf(part));
      this.lastDoneMs.set(worker, now);
    }
    this.done.add(index);
    this.running.delete(index);
    for (const attempt of attempts) if (attempt !== own) attempt.abort.abort();
    this.changes.tell();
    return true;
  }

  /** The worker gives a part up. It is the next one that is taken, unless somebody has done it or still works on it. */
  giveUp({ index }: TakenPart<Part>, worker: Worker): void {
    const others = (this.running.get(index) ?? []).filter((attempt) => attempt.worker !== worker);
    if (others.length > 0) {
      this.running.set(index, others);
    } else {
      this.running.delete(index);
      if (!this.done.has(index)) this.waiting.unshift(index);
    }
    this.changes.tell();
  }

  private isBusy(worker: Worker): boolean {
    return [...this.running.values()].some((attempts) => attempts.some((attempt) => attempt.worker === worker));
  }

  private begin(index: number, worker: Worker): TakenPart<Part> {
    const abort = new AbortController();
    this.running.set(index, [...(this.running.get(index) ?? []), { worker, startedMs: performance.now(), abort }]);
    return { index, part: this.parts[index]!, signal: abort.signal };
  }

  /** Of the parts that one worker has begun the one that this worker should begin first, and when. */
  private mostLate(worker: Worker): [index: number | undefined, dueMs: number] {
    const pace = this.msPerCost.get(worker);
    const { costOf } = this;
    if (pace === undefined || costOf === undefined) return [undefined, Infinity];
    let late: number | undefined;
    let dueMs = Infinity;
    for (const [index, attempts] of this.running) {
      const [attempt] = attempts;
      if (attempts.length !== 1 || attempt === undefined || attempt.worker === worker) continue;
      const due = attempt.startedMs + Math.max(this.leastPatienceMs, PATIENCE * pace * costOf(this.parts[index]!));
      if (due < dueMs) [late, dueMs] = [index, due];
    }
    return [late, dueMs];
  }
}
