import { throwIfCancelled } from '@secateur/core';
import { sideBySide } from '../scheduler/side-by-side.js';
import type { AllocatedProjection } from './allocate-block.js';

/** A projection that is in the output. */
export interface WrittenProjection {
  readonly allocated: AllocatedProjection;
  /** Of the pruned tensor. */
  readonly digest: string;
}

/** Puts the projections of a block into the output while others of it are still allocated: in the order they come, a few at a time. */
export class BlockWriter {
  private readonly arrived: AllocatedProjection[] = [];
  private readonly waiting: ((next: AllocatedProjection | undefined) => void)[] = [];
  private readonly written = new Map<string, WrittenProjection>();
  private isOver = false;

  constructor(
    /** Writes one and returns its digest. */
    private readonly write: (allocated: AllocatedProjection) => Promise<string>,
    private readonly atOnce: number,
  ) {}

  /** To be written as soon as it is its turn. */
  add(allocated: AllocatedProjection): void {
    const taker = this.waiting.shift();
    if (taker === undefined) this.arrived.push(allocated);
    else taker(allocated);
  }

  /** No more come. */
  end(): void {
    this.isOver = true;
    for (const taker of this.waiting.splice(0)) taker(undefined);
  }

  /** Writes what comes and returns it by name when all of it is written. After an error nothing is begun any more, and what was begun has ended. */
  async run(signal: AbortSignal): Promise<ReadonlyMap<string, WrittenProjection>> {
    const works = Array.from({ length: this.atOnce }, () => (linked: AbortSignal) => this.writeInTurn(linked));
    await sideBySide(works, signal);
    return this.written;
  }

  private async writeInTurn(signal: AbortSignal): Promise<void> {
    // One that has aborted already tells nobody any more.
    throwIfCancelled(signal);
    const stop = (): void => this.end();
    signal.addEventListener('abort', stop, { once: true });
    try {
      for (let next = await this.take(); next !== undefined; next = await this.take()) {
        throwIfCancelled(signal);
        this.written.set(next.projection.name, { allocated: next, digest: await this.write(next) });
      }
      throwIfCancelled(signal);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  private take(): Promise<AllocatedProjection | undefined> {
    if (this.arrived.length > 0 || this.isOver) return Promise.resolve(this.arrived.shift());
    return new Promise((resolve) => {
      this.waiting.push(resolve);
    });
  }
}
