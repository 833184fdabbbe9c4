import { endianness } from 'node:os';
import { SecateurError } from '@secateur/core';
import { DataType } from '@secateur/proto/model';

if (endianness() !== 'LE') throw new SecateurError('FAILED_PRECONDITION', 'Checkpoints can only be read on little-endian machines.');

/** Masks over two 16-bit elements or one 32-bit element: adding `carry` to the exponent bits sets `overflow` when they are all ones. */
interface ExponentBits {
  readonly exponent: number;
  readonly carry: number;
  readonly overflow: number;
}

const EXPONENT_BITS: Readonly<Partial<Record<DataType, ExponentBits>>> = {
  [DataType.F32]: { exponent: 0x7f800000, carry: 0x00800000, overflow: 0x80000000 },
  [DataType.F16]: { exponent: 0x7c007c00, carry: 0x04000400, overflow: 0x80008000 },
  [DataType.BF16]: { exponent: 0x7f807f80, carry: 0x00800080, overflow: 0x80008000 },
};

/** Bytes per element of the data types that are computed with. */
export function elementBytes(dataType: DataType): number {
  return dataType === DataType.F32 ? 4 : 2;
}

/** Elements as their bit patterns. `bytes` must begin at a multiple of `bytesEach` (2 or 4) in its memory. */
export function rawElements(bytes: Uint8Array, bytesEach: number): Uint16Array | Uint32Array {
  return bytesEach === 2
    ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1)
    : new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
}

/** Index of the first NaN or infinity, or -1. `bytes` must begin at a multiple of 4 in its memory and hold whole elements. */
export function findNonFinite(bytes: Uint8Array, dataType: DataType): number {
  const bits = EXPONENT_BITS[dataType];
  if (bits === undefined) return -1;
  const { exponent, carry, overflow } = bits;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  let seen = 0;
  // No branch in the loop: this runs at memory speed, and a checkpoint with a NaN is rare.
  // eslint-disable-next-line @typescript-eslint/prefer-for-of -- four times slower over a typed array
  for (let index = 0; index < words.length; index++) seen |= ((words[index] ?? 0) & exponent) + carry;
  const oddTail = (bytes.byteLength & 2) !== 0;
  if ((seen & overflow) === 0 && !oddTail) return -1;
  const values = decodeElements(bytes, dataType);
  return values.findIndex((value) => !Number.isFinite(value));
}

/** Elements widened to float32. `bytes` must begin at a multiple of 4 in its memory. */
export function decodeElements(bytes: Uint8Array, dataType: DataType): Float32Array {
  if (dataType === DataType.F32) return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  const table = wideningTable(dataType);
  const elements = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);
  const values = new Float32Array(elements.length);
  for (let index = 0; index < elements.length; index++) values[index] = table[elements[index] ?? 0] ?? NaN;
  return values;
}

const wideningTables = new Map<DataType, Float32Array>();

/** The float32 value of each of the 65536 patterns. */
function wideningTable(dataType: DataType): Float32Array {
  let table = wideningTables.get(dataType);
  if (table === undefined) {
    table = dataType === DataType.BF16 ? bfloat16Table() : float16Table();
    wideningTables.set(dataType, table);
  }
  return table;
}

function bfloat16Table(): Float32Array {
  return new Float32Array(Uint32Array.from({ length: 1 << 16 }, (_, pattern) => pattern << 16).buffer);
}

function float16Table(): Float32Array {
  return Float32Array.from({ length: 1 << 16 }, (_, pattern) => {
    const sign = pattern >> 15 === 0 ? 1 : -1;
    const exponent = (pattern >> 10) & 0x1f;
    const fraction = pattern & 0x3ff;
    if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}
