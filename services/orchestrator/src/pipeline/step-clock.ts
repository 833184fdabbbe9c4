/** Seconds in which each step was under way, summed over the layers of a job. Steps may overlap. */
export class StepClock {
  private readonly totals: Record<string, number> = {};
  /** How often each step is under way, and since when. */
  private readonly running = new Map<string, { count: number; readonly started: number }>();

  /** `now`: milliseconds that only grow. */
  constructor(readonly now: () => number = () => performance.now()) {}

  /** Parts of one step that run side by side count once. */
  async measure<Result>(step: string, work: () => Promise<Result>): Promise<Result> {
    const current = this.running.get(step) ?? { count: 0, started: this.now() };
    current.count += 1;
    this.running.set(step, current);
    try {
      return await work();
    } finally {
      current.count -= 1;
      if (current.count === 0) {
        this.running.delete(step);
        this.totals[step] = (this.totals[step] ?? 0) + this.secondsSince(current.started);
      }
    }
  }

  secondsSince(started: number): number {
    return (this.now() - started) / 1000;
  }

  seconds(): Record<string, number> {
    return { ...this.totals };
  }
}
