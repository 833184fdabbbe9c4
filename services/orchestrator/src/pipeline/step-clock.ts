/** Seconds spent per step, summed over the layers of a job. */
export class StepClock {
  private readonly totals: Record<string, number> = {};

  /** `now`: milliseconds that only grow. */
  constructor(readonly now: () => number = () => performance.now()) {}

  async measure<Result>(step: string, work: () => Promise<Result>): Promise<Result> {
    const started = this.now();
    try {
      return await work();
    } finally {
      this.totals[step] = (this.totals[step] ?? 0) + this.secondsSince(started);
    }
  }

  secondsSince(started: number): number {
    return (this.now() - started) / 1000;
  }

  seconds(): Record<string, number> {
    return { ...this.totals };
  }
}
