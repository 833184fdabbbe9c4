import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { loadHasher } from '@secateur/core';
import { chunkChecksums } from './chunk-checksums.js';

describe('chunkChecksums', () => {
  test('sums up every chunk as others do, at any length and alignment', async () => {
    const hasher = await loadHasher();
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }),
        fc.nat({ max: 9 }),
        fc.integer({ min: 1, max: 70 }),
        async (bytes, from, size) => {
          const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
            hasher.checksum(bytes.subarray(index * size, (index + 1) * size)),
          );
          const source = Buffer.concat([Buffer.alloc(from), bytes]).subarray(from);
          expect(Buffer.from(await chunkChecksums(source, size)).equals(Buffer.concat(chunks))).toBe(true);
        },
      ),
    );
  });

  test('leaves this thread to others meanwhile', async () => {
    const checksums = chunkChecksums(Buffer.alloc(64 << 20, 7), 1 << 20);
    let turns = 0;
    const counting = setInterval(() => turns++, 1);
    const all = Buffer.from(await checksums);
    clearInterval(counting);
    expect(turns).toBeGreaterThan(0);
    expect(all.equals(Buffer.alloc(64 * 8, all.subarray(0, 8)))).toBe(true);
  });

  test('refuses what is no bytes, and chunks of none', () => {
    expect(() => chunkChecksums('bytes' as unknown as Uint8Array, 1)).toThrow('bytes must be a Uint8Array');
    expect(() => chunkChecksums(new Uint8Array(1), 0)).toThrow('chunkBytes must be positive.');
  });
});
