import { droppedCount } from '../reference/row-order.js';

/**
 * Sparsities, float32 [rows], with which rows of so many columns drop exactly these counts: the shares, or the next float32 above where rounding
 * would lose a weight.
 */
export function sparsitiesOfCounts(counts: Int32Array, columns: number): Float32Array {
  const sparsities = Float32Array.from(counts, (count) => count / columns);
  const bits = new Int32Array(sparsities.buffer);
  for (const [row, count] of counts.entries()) {
    while (droppedCount(columns, sparsities[row]!) < count) bits[row]! += 1;
  }
  return sparsities;
}
