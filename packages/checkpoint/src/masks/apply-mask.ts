import { SecateurError } from '@secateur/core';
import { rawElements } from '../checkpoint/float-elements.js';
import { maskRowBytes } from './packed-mask.js';

/** Rows handled before other work gets a turn. */
const SLICE_BYTES = 4 << 20;

export interface MaskedShape {
  readonly rows: number;
  readonly columns: number;
  /** 2 or 4. */
  readonly elementBytes: number;
}

/** Bits that are set in each byte. */
const COUNTS = Uint8Array.from({ length: 256 }, (_, bits) => bits.toString(2).replaceAll('0', '').length);

/**
 * Sets dropped elements to +0 in place; all other bytes stay what they are.
 * `bytes`: row-major [rows, columns]. `mask`: rows bit-packed, least significant bit first, 1 = dropped.
 * Returns the number dropped in each row.
 */
export async function applyMask(name: string, bytes: Uint8Array, shape: MaskedShape, mask: Uint8Array): Promise<Int32Array> {
  requireMaskShape(name, bytes, shape, mask);
  const { rows, columns, elementBytes } = shape;
  const rowBytes = columns * elementBytes;
  const elements = rawElements(bytes, elementBytes);
  const rowsPerSlice = Math.max(1, Math.floor(SLICE_BYTES / rowBytes));
  const dropped = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    if (row > 0 && row % rowsPerSlice === 0) await new Promise(setImmediate);
    dropped[row] = zeroRow(elements, row * columns, columns, mask, row * maskRowBytes(columns));
  }
  return dropped;
}

export function requireMaskShape(name: string, bytes: Uint8Array, { rows, columns, elementBytes }: MaskedShape, mask: Uint8Array): void {
  if (bytes.byteLength === rows * columns * elementBytes && mask.byteLength === rows * maskRowBytes(columns)) return;
  throw new SecateurError('CORRUPT_DATA', `${name}: the mask does not have the shape of the weight.`);
}

function zeroRow(elements: Uint16Array | Uint32Array, start: number, columns: number, mask: Uint8Array, maskStart: number): number {
  let dropped = 0;
  const whole = columns >> 3;
  for (let byte = 0, at = start; byte < whole; byte++, at += 8) {
    const bits = mask[maskStart + byte]!;
    if (bits === 0) continue;
    dropped += COUNTS[bits]!;
    // A bit less 1 keeps all bits of an element, or none: a mask follows no pattern, and branches on it would be guessed wrong half of the time.
    elements[at]! &= (bits & 1) - 1;
    elements[at + 1]! &= ((bits >> 1) & 1) - 1;
    elements[at + 2]! &= ((bits >> 2) & 1) - 1;
    elements[at + 3]! &= ((bits >> 3) & 1) - 1;
    elements[at + 4]! &= ((bits >> 4) & 1) - 1;
    elements[at + 5]! &= ((bits >> 5) & 1) - 1;
    elements[at + 6]! &= ((bits >> 6) & 1) - 1;
    elements[at + 7]! &= (bits >> 7) - 1;
  }
  for (let column = whole << 3; column < columns; column++) {
    const bit = (mask[maskStart + whole]! >> (column & 7)) & 1;
    elements[start + column]! &= bit - 1;
    dropped += bit;
  }
  return dropped;
}
