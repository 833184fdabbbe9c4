import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { applyMask } from './apply-mask.js';

interface Case {
  readonly rows: number;
  readonly columns: number;
  readonly elementBytes: 2 | 4;
  readonly dropped: readonly boolean[];
}

const cases = fc
  .record({ rows: fc.integer({ min: 1, max: 9 }), columns: fc.integer({ min: 1, max: 70 }), elementBytes: fc.constantFrom<2 | 4>(2, 4) })
  .chain((shape) =>
    fc
      .array(fc.boolean(), { minLength: shape.rows * shape.columns, maxLength: shape.rows * shape.columns })
      .map((dropped): Case => ({ ...shape, dropped })),
  );

function pack({ rows, columns, dropped }: Case): { mask: Uint8Array; counts: Int32Array } {
  const rowBytes = Math.ceil(columns / 8);
  const mask = new Uint8Array(rows * rowBytes);
  const counts = new Int32Array(rows);
  dropped.forEach((isDropped, index) => {
    if (!isDropped) return;
    const row = Math.floor(index / columns);
    const column = index % columns;
    mask[row * rowBytes + (column >> 3)]! |= 1 << (column & 7);
    counts[row]! += 1;
  });
  return { mask, counts };
}

describe('applyMask', () => {
  test('zeroes exactly the dropped elements and leaves every other byte', () =>
    fc.assert(
      fc.asyncProperty(cases, async (drawn) => {
        const { rows, columns, elementBytes, dropped } = drawn;
        const { mask, counts } = pack(drawn);
        const bytes = Buffer.alloc(rows * columns * elementBytes, 0xab);
        expect(await applyMask('w', bytes, { rows, columns, elementBytes }, mask)).toEqual(counts);
        dropped.forEach((isDropped, index) => {
          const element = bytes.subarray(index * elementBytes, (index + 1) * elementBytes);
          expect(element.every((byte) => byte === (isDropped ? 0 : 0xab))).toBe(true);
        });
      }),
    ));

  test('refuses a mask of another shape', async () => {
    const bytes = Buffer.alloc(2 * 9 * 2);
    await expect(applyMask('w', bytes, { rows: 2, columns: 9, elementBytes: 2 }, new Uint8Array(2))).rejects.toThrow(/shape/);
  });
});
