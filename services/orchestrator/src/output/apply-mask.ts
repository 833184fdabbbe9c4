import { SecateurError } from '@secateur/core';

/** Rows handled before other work gets a turn. */
const SLICE_BYTES = 4 << 20;

/**
 * Sets dropped elements to +0 in place; all other bytes stay what they are.
 * `bytes`: row-major [rows, columns] of `elementBytes` (2 or 4) each. `mask`: rows bit-packed, least significant bit first, 1 = dropped.
 * `droppedPerRow`: int32 little-endian [rows]; a mask that contradicts it is CORRUPT_DATA naming the row. Returns the number dropped.
 */
export async function applyMask(
  name: string,
  bytes: Buffer,
  shape: { readonly rows: number; readonly columns: number; readonly elementBytes: number },
  mask: Uint8Array,
  droppedPerRow: Uint8Array,
): Promise<number> {
  const { rows, columns, elementBytes } = shape;
  const maskRowBytes = Math.ceil(columns / 8);
  const rowBytes = columns * elementBytes;
  if (bytes.byteLength !== rows * rowBytes || mask.byteLength !== rows * maskRowBytes || droppedPerRow.byteLength !== 4 * rows) {
    throw new SecateurError('CORRUPT_DATA', `${name}: the mask does not have the shape of the weight.`);
  }
  const elements =
    elementBytes === 2
      ? new Uint16Array(bytes.buffer, bytes.byteOffset, rows * columns)
      : new Uint32Array(bytes.buffer, bytes.byteOffset, rows * columns);
  const counts = new DataView(droppedPerRow.buffer, droppedPerRow.byteOffset, droppedPerRow.byteLength);
  const rowsPerSlice = Math.max(1, Math.floor(SLICE_BYTES / rowBytes));
  let total = 0;
  for (let row = 0; row < rows; row++) {
    if (row > 0 && row % rowsPerSlice === 0) await new Promise(setImmediate);
    const dropped = zeroRow(elements, row * columns, columns, mask, row * maskRowBytes);
    if (dropped !== counts.getInt32(4 * row, true)) {
      throw new SecateurError(
        'CORRUPT_DATA',
        `${name}: row ${row} of the mask drops ${dropped} weights, its record says ${counts.getInt32(4 * row, true)}.`,
      );
    }
    total += dropped;
  }
  return total;
}

function zeroRow(elements: Uint16Array | Uint32Array, start: number, columns: number, mask: Uint8Array, maskStart: number): number {
  let dropped = 0;
  for (let column = 0; column < columns; column += 8) {
    const bits = mask[maskStart + (column >> 3)]!;
    if (bits === 0) continue;
    const width = Math.min(8, columns - column);
    for (let bit = 0; bit < width; bit++) {
      if ((bits >> bit) & 1) {
        elements[start + column + bit] = 0;
        dropped += 1;
      }
    }
  }
  return dropped;
}
