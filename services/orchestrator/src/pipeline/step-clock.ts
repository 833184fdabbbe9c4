/** Seconds spent per step, summed over the layers of a job. */
export class StepClock {
  private readonly totals: Record<string, number> = {};

  async measure<Result>(step: string, work: () => Promise<Result>): Promise<Result> {
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.totals[step] = (this.totals[step] ?? 0) + (performance.now() - started) / 1000;
    }
  }

  seconds(): Record<string, number> {
    return { ...this.totals };
  }
}
