import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CHUNK_BYTES, loadHasher } from '@secateur/core';
import { moveWithChecksum } from './move-with-checksum.js';

describe('moveWithChecksum', () => {
  test('copies every byte and no other, and sums up as the sender does, at any length and alignment', async () => {
    const hasher = await loadHasher();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat({ max: 9 }), fc.nat({ max: 9 }), (bytes, from, to) => {
        const source = Buffer.concat([Buffer.alloc(from), bytes]).subarray(from);
        const room = Buffer.alloc(to + bytes.length + 1, 0xee);
        const checksum = moveWithChecksum(room.subarray(to, to + bytes.length), source);
        expect(Buffer.from(checksum).equals(hasher.checksum(bytes))).toBe(true);
        expect(room.equals(Buffer.concat([Buffer.alloc(to, 0xee), bytes, Buffer.of(0xee)]))).toBe(true);
      }),
    );
  });

  test('frees memory that was all for the source, and no other', async () => {
    const content = Buffer.from(Uint8Array.from({ length: CHUNK_BYTES }, (_, index) => (index * 31 + (index >> 13)) & 0xff));
    const message = Buffer.concat([Buffer.of(1, 2, 3), content, Buffer.of(4)]);
    const source = message.subarray(3, -1);
    const target = Buffer.alloc(CHUNK_BYTES);
    expect(Buffer.from(moveWithChecksum(target, source)).equals((await loadHasher()).checksum(content))).toBe(true);
    expect(target.equals(content)).toBe(true);
    expect([message.byteLength, source.byteLength]).toEqual([0, 0]);

    moveWithChecksum(target.subarray(0, 100), content.subarray(0, 100));
    expect(content.byteLength).toBe(CHUNK_BYTES);
  });

  test('refuses a target of another size', () => {
    expect(() => moveWithChecksum(Buffer.alloc(3), Buffer.alloc(4))).toThrow('target must have as many bytes as source.');
  });
});
