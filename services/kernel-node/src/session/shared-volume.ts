import { CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import type { TensorDescriptor } from '@secateur/proto/model';

/** Chunks read at a time; other work gets a turn in between. */
const READ_BYTES = 8 * CHUNK_BYTES;
/** A store that failed is left alone for so long: waiting for it would take longer than pulling. */
const REST_MS = 60_000;

/** Folders and stores that this node shares with orchestrators: checkpoints in them are read directly instead of being pulled. */
export class SharedVolume {
  /** By bucket. */
  private readonly restingUntil = new Map<string, number>();

  constructor(private readonly roots: readonly string[]) {}

  /**
   * Fills `target` with a tensor's bytes. False when they are to be pulled: the descriptor names no file, or this node does not reach it,
   * or what is there is something else, as on another volume under the same name.
   */
  async read(tensor: TensorDescriptor, target: Uint8Array, signal: AbortSignal): Promise<boolean> {
    if (this.roots.length === 0 || tensor.path === '' || tensor.digest === '') return false;
    // Only nodes that share a volume or a store pay for loading it.
    const { isStoreUrl, openInput } = await import('@secateur/checkpoint');
    const store = isStoreUrl(tensor.path) ? tensor.path.split('/', 3).join('/') : undefined;
    if (store !== undefined && performance.now() < (this.restingUntil.get(store) ?? 0)) return false;
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
      const isOutside = error instanceof SecateurError && error.reason === 'PATH_NOT_ALLOWED';
      if (store !== undefined && !isOutside) this.restingUntil.set(store, performance.now() + REST_MS);
      return false;
    }
    return digest.hex() === tensor.digest;
  }
}
