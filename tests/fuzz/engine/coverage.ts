import { Session, type Profiler } from 'node:inspector';

/** Which parts of the code under test have run, as V8 counts them. */
export class Coverage implements Disposable {
  private readonly session = new Session();
  private readonly seen = new Set<string>();

  /** `watched`: pieces of the addresses of the files that count. */
  constructor(private readonly watched: readonly string[]) {
    this.session.connect();
    this.session.post('Profiler.enable');
    this.session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Whether something ran since the last question that never did before. */
  isNew(): boolean {
    let found = false;
    // Answers before it returns.
    this.session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error !== null) throw error;
      for (const script of answer.result) if (this.watches(script)) found = this.remember(script) || found;
    });
    return found;
  }

  /** Parts that have run. */
  get size(): number {
    return this.seen.size;
  }

  [Symbol.dispose](): void {
    this.session.disconnect();
  }

  private watches({ url }: Profiler.ScriptCoverage): boolean {
    return this.watched.some((piece) => url.includes(piece));
  }

  private remember({ scriptId, functions }: Profiler.ScriptCoverage): boolean {
    const before = this.seen.size;
    for (const { ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) {
        // Rough counts tell loops that go on from those that end.
        if (count > 0) this.seen.add(`${scriptId}:${startOffset}:${endOffset}:${Math.min(4, Math.floor(Math.log2(count) / 2))}`);
      }
    }
    return this.seen.size > before;
  }
}
