import type { openInput } from '@secateur/checkpoint';
import { CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import { chunkChecksums } from '@secateur/native';
import type { TensorDescriptor } from '@secateur/proto/model';

/** Read at a time, while what came before is checked. */
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
    try {
      const file = await openInput(tensor.path, { allowedRoots: this.roots });
      try {
        return (await readWithDigest(file, target, tensor.pathOffset, signal)) === tensor.digest;
      } finally {
        await file.close();
      }
    } catch (error) {
      if (signal.aborted) throw error;
      const isOutside = error instanceof SecateurError && error.reason === 'PATH_NOT_ALLOWED';
      if (store !== undefined && !isOutside) this.restingUntil.set(store, performance.now() + REST_MS);
      return false;
    }
  }
}

/** Fills `target` from `position` on, and digests it as it comes. */
async function readWithDigest(
  file: Awaited<ReturnType<typeof openInput>>,
  target: Uint8Array,
  position: number,
  signal: AbortSignal,
): Promise<string> {
  const digest = (await loadHasher()).createDigest();
  let checking = Promise.resolve();
  try {
    for (let offset = 0; offset < target.byteLength; offset += READ_BYTES) {
      const part = target.subarray(offset, offset + READ_BYTES);
      await file.readInto(part, position + offset, signal);
      await checking;
      checking = chunkChecksums(part, CHUNK_BYTES).then((checksums) => digest.addChecksum(checksums));
    }
  } finally {
    // Nobody is to use the memory before.
    await checking;
  }
  return digest.hex();
}
