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

/** Bytes, and the same memory as the words that lie whole in it, on which counting takes a fraction of the time. */
interface Countable {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  /** Bytes before the first word. */
  readonly lead: number;
}

function countable(bytes: Uint8Array): Countable {
  const lead = Math.min(-bytes.byteOffset & 3, bytes.byteLength);
  const words = (bytes.byteLength - lead) >> 2;
  // Without a word the place of the first may be past the end.
  return { bytes, lead, words: words === 0 ? new Int32Array(0) : new Int32Array(bytes.buffer, bytes.byteOffset + lead, words) };
}

/** Bits that are set from one byte to before another. */
function countBetween({ bytes, words, lead }: Countable, start: number, end: number): number {
  const first = Math.max(0, (start - lead + 3) >> 2);
  const last = (end - lead) >> 2;
  let count = 0;
  let at = start;
  if (first < last) {
    for (; at < lead + 4 * first; at++) count += BITS_SET[bytes[at]!]!;
    for (let word = first; word < last; word++) count += bitsOfWord(words[word]!);
    at = lead + 4 * last;
  }
  for (; at < end; at++) count += BITS_SET[bytes[at]!]!;
  return count;
}

/** Adds neighbouring bits, then pairs, then fours; the product adds the four bytes. */
function bitsOfWord(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Bits that are set. */
export function countBits(bytes: Uint8Array): number {
  return countBetween(countable(bytes), 0, bytes.byteLength);
}

/** Bits that are set in each row. */
export function countDropped(mask: Uint8Array, columns: number): Int32Array {
  const rowBytes = maskRowBytes(columns);
  const counted = countable(mask);
  const dropped = new Int32Array(mask.byteLength / rowBytes);
  for (let row = 0; row < dropped.length; row++) dropped[row] = countBetween(counted, row * rowBytes, (row + 1) * rowBytes);
  return dropped;
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
