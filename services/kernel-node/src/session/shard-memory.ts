import { constants } from 'node:buffer';
import { SecateurError } from '@secateur/core';

/**
 * Where a session pulls shards before the engine copies them. The memory of one shard is kept for the next, since blocks are alike: fresh
 * memory costs more time, page by page, than the bytes that are put there.
 */
export class ShardMemory {
  private kept: Buffer[] = [];

  /** Runs work on buffers of these sizes. They hold anything at first, and are not to be used afterwards. */
  async use<Result>(sizes: readonly number[], work: (buffers: readonly Buffer[]) => Promise<Result>): Promise<Result> {
    const available = this.kept;
    this.kept = [];
    const buffers = sizes.map((size) => take(available, size) ?? allocate(size));
    const result = await work(buffers);
    this.kept = [...buffers];
    return result;
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
