import type { Score } from '@secateur/proto/allocation';
import type { ReferenceProjection } from './projection.js';
import { compareByCurves } from './quality-curves.js';
import { compareByProducts } from './pruned-outputs.js';
import { packMask, sortRows } from './row-order.js';
import { searchRows, type ReferenceAllocation, type TrimSearchOptions } from './trim-search.js';

export interface ReferenceOptions extends TrimSearchOptions {
  readonly score: Score;
  /** How pruned outputs are compared at each step: by matrix products, or by look-up in quality curves. */
  readonly evaluation: 'products' | 'curves';
}

/** An allocation with its mask: rows bit-packed, least significant bit first, 1 = dropped. */
export interface ReferenceRows extends ReferenceAllocation {
  readonly mask: Uint8Array;
}

/** The rows of a projection allocated in plain float64: what the engine is held to. */
export function allocateRowsByReference(projection: ReferenceProjection, options: ReferenceOptions): ReferenceRows {
  const { rows, columns } = projection;
  const orders = sortRows(projection, options.score);
  const compare = options.evaluation === 'curves' ? compareByCurves(projection, orders) : compareByProducts(projection, orders);
  const allocation = searchRows(rows, columns, compare, options);
  return { ...allocation, mask: packMask(orders, allocation.droppedPerRow, columns) };
}
