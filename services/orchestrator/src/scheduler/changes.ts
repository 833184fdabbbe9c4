import { setTimeout as delay } from 'node:timers/promises';

/** Something that changes, as often as it is told of, for those that wait until it has. */
export class Changes {
  private tellOfNext = (): void => undefined;
  private next = this.begin();

  tell(): void {
    this.tellOfNext();
    this.next = this.begin();
  }

  /** Over with the next change, after so many milliseconds, or when the signal aborts; never throws. */
  async wait(mostMs: number, signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const waited = delay(mostMs, undefined, { signal: AbortSignal.any([signal, stop.signal]) });
    await Promise.race([waited.catch(() => undefined), this.next]);
    stop.abort();
  }

  private begin(): Promise<void> {
    return new Promise((resolve) => {
      this.tellOfNext = resolve;
    });
  }
}
