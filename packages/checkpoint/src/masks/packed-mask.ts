import type { SafetensorsEntry } from '../safetensors/safetensors-file-writer.js';

/** Bytes of a row of a mask: one bit for each column, least significant bit first, padded to bytes. */
export function maskRowBytes(columns: number): number {
  return Math.ceil(columns / 8);
}

/** The tensors of a masks file: the masks of projections under the names of their weights. */
export function maskEntries(
  projections: readonly { readonly name: string; readonly rows: number; readonly columns: number }[],
): SafetensorsEntry[] {
  return projections.map(({ name, rows, columns }) => ({ name, dtype: 'U8', shape: [rows, maskRowBytes(columns)] }));
}

/** Fills `mask` with the elements that are +0 or -0; `elements` are the bit patterns of whole rows. */
export function packZeros(elements: Uint16Array | Uint32Array, columns: number, mask: Uint8Array): void {
  const withoutSign = elements.BYTES_PER_ELEMENT === 2 ? 0x7fff : 0x7fffffff;
  let packed = 0;
  for (let start = 0; start < elements.length; start += columns) {
    for (let column = 0; column < columns; column += 8) {
      const width = Math.min(8, columns - column);
      let bits = 0;
      for (let bit = 0; bit < width; bit++) {
        if ((elements[start + column + bit]! & withoutSign) === 0) bits |= 1 << bit;
      }
      mask[packed++] = bits;
    }
  }
}

const BITS_SET = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

/** Bits that are set. */
export function countBits(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) count += BITS_SET[byte]!;
  return count;
}

/** Bits that are set in each row. */
export function countDropped(mask: Uint8Array, columns: number): Int32Array {
  const rowBytes = maskRowBytes(columns);
  return Int32Array.from({ length: mask.byteLength / rowBytes }, (_, row) =>
    countBits(mask.subarray(row * rowBytes, (row + 1) * rowBytes)),
  );
}

/** Bits that are set in both of two packings of one length. */
export function countCommonBits(left: Uint8Array, right: Uint8Array): number {
  let count = 0;
  for (let index = 0; index < left.length; index++) count += BITS_SET[left[index]! & right[index]!]!;
  return count;
}

/** The first row with a bit set behind its last column, or -1. */
export function findSetPadding(mask: Uint8Array, columns: number): number {
  const rowBytes = maskRowBytes(columns);
  const padding = (0xff << (columns - 8 * (rowBytes - 1))) & 0xff;
  if (padding === 0) return -1;
  for (let last = rowBytes - 1; last < mask.byteLength; last += rowBytes) {
    if ((mask[last]! & padding) !== 0) return (last - (rowBytes - 1)) / rowBytes;
  }
  return -1;
}
