import { Score } from '@secateur/proto/allocation';
import type { ReferenceProjection } from './projection.js';

/** Columns of each row by rising score, equal scores in column order: what a row drops first. Scores are float32. */
export function sortRows(projection: ReferenceProjection, score: Score): Uint32Array[] {
  const { rows, columns, weights, meanSquares } = projection;
  const scales = score === Score.WANDA ? meanSquares.map((meanSquare) => Math.sqrt(meanSquare)) : new Float32Array(columns).fill(1);
  return Array.from({ length: rows }, (_, row) => {
    const scores = scales.map((scale, column) => Math.abs(weights[row * columns + column]!) * scale);
    return Uint32Array.from(scores.keys()).sort((left, right) => scores[left]! - scores[right]! || left - right);
  });
}

/** Weights that a row of a sparsity drops: floor(float32(columns) · float32(sparsity)), never fewer than none or more than all. */
export function droppedCount(columns: number, sparsity: number): number {
  return Math.min(Math.max(Math.floor(Math.fround(columns * Math.fround(sparsity))), 0), columns);
}

/** Mask of the first `counts[row]` columns of each order: rows bit-packed, least significant bit first, 1 = dropped, padded to bytes. */
export function packMask(orders: readonly Uint32Array[], counts: Int32Array, columns: number): Uint8Array {
  const rowBytes = Math.ceil(columns / 8);
  const mask = new Uint8Array(orders.length * rowBytes);
  for (const [row, order] of orders.entries()) {
    for (const column of order.subarray(0, counts[row])) mask[row * rowBytes + (column >> 3)]! |= 1 << (column & 7);
  }
  return mask;
}
