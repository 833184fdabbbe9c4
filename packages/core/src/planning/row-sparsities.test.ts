import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { droppedCount } from '../reference/row-order.js';
import { sparsitiesOfCounts } from './row-sparsities.js';

test('sparsities drop the counts they are made of, and are hardly above the shares', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 70_000 }),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 20 }),
      (columns, shares) => {
        const counts = Int32Array.from(shares, (share) => Math.round(share * columns));
        const sparsities = sparsitiesOfCounts(counts, columns);
        for (const [row, sparsity] of sparsities.entries()) {
          expect(droppedCount(columns, sparsity)).toBe(counts[row]);
          expect(Math.abs(sparsity - counts[row]! / columns)).toBeLessThan(3e-7);
        }
      },
    ),
  );
});

test('all counts of some widths', () => {
  for (const columns of [1, 7, 64, 1000, 4096]) {
    const counts = Int32Array.from({ length: columns + 1 }, (_, count) => count);
    expect(Int32Array.from(sparsitiesOfCounts(counts, columns), (sparsity) => droppedCount(columns, sparsity))).toEqual(counts);
  }
});
