import { CHUNK_BYTES, loadHasher } from '@secateur/core';
import type { TensorDescriptor } from '@secateur/proto/model';

/** Chunks read at a time; other work gets a turn in between. */
const READ_BYTES = 8 * CHUNK_BYTES;

/** Folders and stores that this node shares with orchestrators: checkpoints in them are read directly instead of being pulled. */
export class SharedVolume {
  constructor(private readonly roots: readonly string[]) {}

  /**
   * Fills `target` with a tensor's bytes. False when they are to be pulled: the descriptor names no file, or this node does not reach it,
   * or what is there is something else, as on another volume under the same name.
   */
  async read(tensor: TensorDescriptor, target: Uint8Array, signal: AbortSignal): Promise<boolean> {
    if (this.roots.length === 0 || tensor.path === '' || tensor.digest === '') return false;
    // Only nodes that share a volume or a store pay for loading it.
    const { openInput } = await import('@secateur/checkpoint');
    const hasher = await loadHasher();
    const digest = hasher.createDigest();
    try {
      const file = await openInput(tensor.path, { allowedRoots: this.roots });
      try {
        for (let offset = 0; offset < target.byteLength; offset += READ_BYTES) {
          const part = target.subarray(offset, offset + READ_BYTES);
          await file.readInto(part, tensor.pathOffset + offset, signal);
          for (let start = 0; start < part.byteLength; start += CHUNK_BYTES) {
            digest.addChecksum(hasher.checksum(part.subarray(start, start + CHUNK_BYTES)));
          }
        }
      } finally {
        await file.close();
      }
    } catch (error) {
      if (signal.aborted) throw error;
      return false;
    }
    return digest.hex() === tensor.digest;
  }
}
