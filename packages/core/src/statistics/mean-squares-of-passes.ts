import { SecateurError } from '../errors.js';
import type { ReducedSite } from './reduce-statistics.js';

/**
 * The mean squares [columns] that a projection is scored by, float32 little-endian, of the passes that collected its input so far. The published
 * code adds up squares over all passes, but scores the first projection of an input before the pass that recalculates it.
 */
export function meanSquaresOfPasses(passes: readonly ReducedSite[], isFirstOfInput: boolean): Uint8Array {
  const [first] = passes;
  if (first === undefined) throw new SecateurError('INTERNAL', 'A projection is to be scored before its input was collected.');
  if (isFirstOfInput || passes.length === 1) return first.meanSquares;
  const all = passes.map(({ meanSquares }) => new DataView(meanSquares.buffer, meanSquares.byteOffset, meanSquares.byteLength));
  const means = Float32Array.from(
    { length: first.columns },
    (_, column) => all.reduce((sum, values) => sum + values.getFloat32(4 * column, true), 0) / all.length,
  );
  return new Uint8Array(means.buffer);
}
