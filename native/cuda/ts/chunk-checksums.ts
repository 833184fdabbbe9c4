import { loadAddon } from './load.js';

let addon: ReturnType<typeof loadAddon> | undefined;

/**
 * The XXH64 of each chunk of `bytes`, the last of which may be shorter, 8 bytes each, big-endian. Another thread reads the bytes meanwhile; they must
 * stay as they are until it is over.
 */
export function chunkChecksums(bytes: Uint8Array, chunkBytes: number): Promise<Uint8Array> {
  addon ??= loadAddon();
  return addon.chunkChecksums(bytes, chunkBytes);
}
