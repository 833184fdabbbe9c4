import { loadAddon } from './load.js';

let addon: ReturnType<typeof loadAddon> | undefined;

/**
 * Copies `source` to `target`, which has its size and other memory, and returns the XXH64 of what was copied, 8 bytes, big-endian. One pass for both, at
 * once, on the calling thread. Memory that `source` has more than half of is freed: the buffer is detached, with all views of it. What is smaller may
 * lie in Node's pool, beside the buffers of others, and stays.
 */
export function moveWithChecksum(target: Uint8Array, source: Uint8Array): Uint8Array {
  addon ??= loadAddon();
  return addon.moveWithChecksum(target, source);
}
