import { SecateurError } from '@secateur/core';
import { rawElements } from '../checkpoint/float-elements.js';
import { maskRowBytes } from './packed-mask.js';

/** Rows handled before other work gets a turn. */
const SLICE_BYTES = 4 << 20;

/**
 * Sets dropped elements to +0 in place; all other bytes stay what they are.
 * `bytes`: row-major [rows, columns] of `elementBytes` (2 or 4) each. `mask`: rows bit-packed, least significant bit first, 1 = dropped.
 * Returns the number dropped in each row.
 */
export async function applyMask(
  name: string,
  bytes: Uint8Array,
  shape: { readonly rows: number; readonly columns: number; readonly elementBytes: number },
  mask: Uint8Array,
): Promise<Int32Array> {
  const { rows, columns, elementBytes } = shape;
  const rowBytes = columns * elementBytes;
  if (bytes.byteLength !== rows * rowBytes || mask.byteLength !== rows * maskRowBytes(columns)) {
    throw new SecateurError('CORRUPT_DATA', `${name}: the mask does not have the shape of the weight.`);
  }
  const elements = rawElements(bytes, elementBytes);
  const rowsPerSlice = Math.max(1, Math.floor(SLICE_BYTES / rowBytes));
  const dropped = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    if (row > 0 && row % rowsPerSlice === 0) await new Promise(setImmediate);
    dropped[row] = zeroRow(elements, row * columns, columns, mask, row * maskRowBytes(columns));
  }
  return dropped;
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
