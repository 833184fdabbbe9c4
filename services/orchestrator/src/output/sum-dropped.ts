import { SecateurError } from '@secateur/core';

/** The sum of what a mask dropped in each row. `recorded`: int32 little-endian [rows]; a mask that contradicts it is CORRUPT_DATA naming the row. */
export function sumDropped(name: string, dropped: Int32Array, recorded: Uint8Array): number {
  if (recorded.byteLength !== dropped.byteLength) {
    throw new SecateurError(
      'CORRUPT_DATA',
      `${name}: the record has ${recorded.byteLength} bytes of row counts, the mask needs ${dropped.byteLength}.`,
    );
  }
  const counts = new DataView(recorded.buffer, recorded.byteOffset, recorded.byteLength);
  let total = 0;
  for (const [row, count] of dropped.entries()) {
    const expected = counts.getInt32(4 * row, true);
    if (count !== expected) {
      throw new SecateurError('CORRUPT_DATA', `${name}: row ${row} of the mask drops ${count} weights, its record says ${expected}.`);
    }
    total += count;
  }
  return total;
}
