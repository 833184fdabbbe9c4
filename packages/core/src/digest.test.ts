import { beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CHUNK_BYTES, loadHasher, type Hasher } from './digest.js';

let hasher: Hasher;
beforeAll(async () => {
  hasher = await loadHasher();
});

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Bytes that repeat after more than a chunk. */
function pattern(bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, index) => (index * 31 + (index >> 13)) & 0xff);
}

describe('checksums', () => {
  // From the specification of XXH64, seed 0.
  test.each([
    ['', 'ef46db3751d8e999'],
    ['a', 'd24ec4f1a98c6e5b'],
    ['abc', '44bc2cf5ad770999'],
    ['Nobody inspects the spammish repetition', 'fbcea83c8a378bf1'],
  ])('of %j are XXH64, big-endian', (text, expected) => {
    expect(hex(hasher.checksum(Buffer.from(text)))).toBe(expected);
  });
});

describe('digests', () => {
  test('hash the checksums of the chunks, not the bytes', () => {
    const checksum = hasher.checksum(Buffer.from('abc'));
    expect(hasher.digest(Buffer.from('abc'))).toBe(hex(hasher.checksum(checksum)));
  });

  test('of nothing are the hash of nothing', () => {
    expect(hasher.digest(new Uint8Array())).toBe('ef46db3751d8e999');
    expect(hasher.createDigest().hex()).toBe('ef46db3751d8e999');
  });

  test.each([1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 12_345])('of %d bytes, chunk by chunk', (size) => {
    const bytes = pattern(size);
    const digest = hasher.createDigest();
    const checksums: Uint8Array[] = [];
    for (let offset = 0; offset < size; offset += CHUNK_BYTES) {
      const checksum = hasher.checksum(bytes.subarray(offset, offset + CHUNK_BYTES));
      checksums.push(checksum);
      digest.addChecksum(checksum);
    }
    expect(digest.hex()).toBe(hasher.digest(bytes));
    expect(digest.hex()).toBe(hex(hasher.checksum(Buffer.concat(checksums))));
  });

  test('always have 16 digits and see every byte', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), fc.nat(), (bytes, position) => {
        const digest = hasher.digest(bytes);
        expect(digest).toMatch(/^[0-9a-f]{16}$/);
        const changed = Uint8Array.from(bytes);
        changed[position % bytes.length]! ^= 1;
        expect(hasher.digest(changed)).not.toBe(digest);
      }),
    );
  });

  test('are independent of each other', () => {
    const [one, other] = [hasher.createDigest(), hasher.createDigest()];
    one.addChecksum(hasher.checksum(Buffer.from('one')));
    other.addChecksum(hasher.checksum(Buffer.from('other')));
    expect(one.hex()).toBe(hasher.digest(Buffer.from('one')));
    expect(other.hex()).toBe(hasher.digest(Buffer.from('other')));
  });
});
