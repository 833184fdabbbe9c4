import type { Writable } from 'node:stream';

/** Messages that may wait to be sent: one is on its way while the next is made. */
const MAXIMUM_WAITING = 2;

/** Writes messages as fast as the client takes them. */
export class StreamWriter {
  private waiting = 0;
  private wake: (() => void) | undefined;

  constructor(
    private readonly stream: Writable,
    private readonly signal: AbortSignal,
  ) {
    signal.addEventListener('abort', () => this.wake?.(), { once: true });
  }

  /** Resolves when there is room for another message: at most this one still waits. Throws the signal's reason once it aborts. */
  async write(message: unknown): Promise<void> {
    this.signal.throwIfAborted();
    this.waiting += 1;
    this.stream.write(message, () => {
      this.waiting -= 1;
      this.wake?.();
    });
    while (this.waiting >= MAXIMUM_WAITING && !this.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    this.signal.throwIfAborted();
  }
}
