import { constants } from 'node:buffer';
import { SecateurError } from '@secateur/core';

/**
 * Where a session pulls shards, or masks, before the engine copies them. The memory of one shard is kept for the next, since blocks are alike: fresh
 * memory costs more time, page by page, than the bytes that are put there.
 */
export class ShardMemory {
  private kept: Buffer[] = [];

  /** `onDropped` is told of buffers that are not kept any more. */
  constructor(private readonly onDropped: (buffer: Buffer) => void) {}

  /** Runs work on buffers of these sizes. They hold anything at first, and are not to be used afterwards. */
  async use<Result>(sizes: readonly number[], work: (buffers: readonly Buffer[]) => Promise<Result>): Promise<Result> {
    const available = this.kept;
    this.kept = [];
    const buffers: Buffer[] = [];
    try {
      for (const size of sizes) buffers.push(take(available, size) ?? allocate(size));
      this.drop(available.splice(0));
      const result = await work(buffers);
      this.drop(this.kept);
      this.kept = [...buffers];
      return result;
    } catch (error) {
      this.drop([...available, ...buffers]);
      throw error;
    }
  }

  private drop(buffers: readonly Buffer[]): void {
    for (const buffer of buffers) this.onDropped(buffer);
  }
}

function take(available: Buffer[], size: number): Buffer | undefined {
  const index = available.findIndex(({ byteLength }) => byteLength === size);
  return index === -1 ? undefined : available.splice(index, 1)[0];
}

function allocate(bytes: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(bytes);
  } catch (cause) {
    const metadata = { neededBytes: String(bytes), availableBytes: String(constants.MAX_LENGTH) };
    throw new SecateurError('RESOURCE_EXHAUSTED', `A tensor of ${bytes} bytes does not fit into memory.`, { cause, metadata });
  }
}
