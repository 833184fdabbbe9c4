import { afterAll, describe, expect, test } from '@jest/globals';
import { loadHasher } from '@secateur/core';
import { expectFailure } from '../../test/support.js';
import { applyMask } from './apply-mask.js';
import { MaskingThreads } from './masking-threads.js';

const threads = new MaskingThreads();
afterAll(() => threads.close());

const shape = { rows: 37, columns: 101, elementBytes: 2 };

function weightsOf({ rows, columns, elementBytes }: typeof shape): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: rows * columns * elementBytes }, (_, index) => (7 * index) % 251);
}

function maskOf({ rows, columns }: typeof shape): Uint8Array {
  // Beside what belongs to others, as what came over the wire may lie.
  return Uint8Array.from({ length: 64 + rows * Math.ceil(columns / 8) }, (_, index) => (31 * index) % 256)
    .subarray(64)
    .map((bits, index) => (index % 13 === 12 ? bits & 0b11111 : bits));
}

describe('masking threads', () => {
  test('do what applyMask does, and digests before and after', async () => {
    const hasher = await loadHasher();
    const expected = weightsOf(shape);
    const digestBefore = hasher.digest(expected);
    const mask = maskOf(shape);
    const droppedPerRow = await applyMask('w', expected, shape, mask);
    const masked = await threads.mask({ name: 'w', weights: weightsOf(shape), shape, mask, digestsBefore: true });
    expect(masked).toEqual({ weights: expected, droppedPerRow, digest: hasher.digest(expected), digestBefore });
    expect(mask).toEqual(maskOf(shape));
    const others = await threads.mask({ name: 'w', weights: weightsOf(shape), shape, mask, digestsBefore: false });
    expect(others).toEqual({ ...masked, digestBefore: undefined });
  });

  test('take and give memory without a copy, while this thread goes on', async () => {
    const large = { rows: 2048, columns: 8192, elementBytes: 2 };
    const weights = weightsOf(large);
    let turns = 0;
    const counting = setInterval(() => turns++, 1);
    const masking = threads.mask({ name: 'w', weights, shape: large, mask: maskOf(large), digestsBefore: true });
    expect(weights.byteLength).toBe(0);
    const masked = await masking;
    clearInterval(counting);
    expect(masked.weights.buffer.byteLength).toBe(2 * large.rows * large.columns);
    expect(turns).toBeGreaterThan(3);
  });

  test('begin nothing once they are closed', async () => {
    const closed = new MaskingThreads();
    await closed.close();
    const task = { name: 'w', weights: weightsOf(shape), shape, mask: maskOf(shape), digestsBefore: false };
    await expectFailure(() => closed.mask(task), 'CANCELLED', /not masked/);
  });

  test('refuse a mask of another shape, and keep nothing', async () => {
    const weights = weightsOf(shape);
    const task = { name: 'w', weights, shape, mask: new Uint8Array(2), digestsBefore: false };
    await expectFailure(() => threads.mask(task), 'CORRUPT_DATA', /shape/);
    expect(weights.byteLength).toBe(shape.rows * shape.columns * 2);
  });
});
