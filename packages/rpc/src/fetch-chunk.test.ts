import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { FetchResponse } from '@secateur/proto/tensor_service';
import { FetchChunk } from './fetch-chunk.js';

const CHECKSUM = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);

describe('a chunk', () => {
  test.each([
    [0, 1],
    [1, 127],
    [127, 128],
    [128, 300],
    [2 ** 20, 300],
    [2 ** 32, 20],
    [2 ** 53 - 1, 300],
  ])('at offset %d with %d bytes is encoded as the generated code does', (offset, length) => {
    const data = randomBytes(length);
    const chunk = new FetchChunk(300);
    chunk.data(length).set(data);
    const { bytes } = chunk.encode(offset, length, CHECKSUM);
    expect(bytes.equals(FetchResponse.encode({ offset, data, checksum: CHECKSUM }).finish())).toBe(true);
  });

  test('can be used again', () => {
    const chunk = new FetchChunk(300);
    chunk.data(300).fill(1);
    chunk.encode(2 ** 40, 300, CHECKSUM);
    chunk.data(2).set([5, 6]);
    expect(FetchResponse.decode(chunk.encode(0, 2, CHECKSUM).bytes)).toMatchObject({ offset: 0, data: Buffer.of(5, 6) });
  });
});
