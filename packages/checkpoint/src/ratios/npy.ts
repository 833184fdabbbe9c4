import type { SecateurError } from '@secateur/core';

const MAGIC = Buffer.from('\x93NUMPY', 'latin1');
const ELEMENT_BYTES: Readonly<Record<string, number>> = { '<f4': 4, '<f8': 8 };

export function isNpy(bytes: Buffer): boolean {
  return bytes.subarray(0, MAGIC.length).equals(MAGIC);
}

/** The values of an array of NumPy with one axis, float32 or float64. What does not fit is thrown as `fail(what)`. */
export function readNpyVector(bytes: Buffer, fail: (what: string) => SecateurError): Float64Array {
  const version = bytes[MAGIC.length];
  // Later versions have room for a longer header.
  const lengthBytes = version === 1 ? 2 : 4;
  const headerStart = MAGIC.length + 2 + lengthBytes;
  if (version === undefined || version < 1 || version > 3 || bytes.byteLength < headerStart)
    throw fail('it is no .npy file of version 1 to 3');
  const dataStart = headerStart + bytes.readUIntLE(MAGIC.length + 2, lengthBytes);
  if (bytes.byteLength < dataStart) throw fail('it ends inside its header');
  const header = bytes.toString('latin1', headerStart, dataStart);
  // A literal of Python, as NumPy writes it; the order of a single axis does not matter.
  const type = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? '';
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1] ?? '';
  const elementBytes = ELEMENT_BYTES[type];
  const length = /^\s*(\d{1,9})\s*,?\s*$/.exec(shape)?.[1];
  if (elementBytes === undefined || length === undefined) {
    throw fail(`its type is '${type}' and its shape (${shape}); it must be '<f4' or '<f8' with one axis`);
  }
  const data = bytes.subarray(dataStart);
  if (data.byteLength !== elementBytes * Number(length)) throw fail(`it has ${data.byteLength} bytes for ${length} values of '${type}'`);
  return Float64Array.from({ length: Number(length) }, (_, index) =>
    elementBytes === 4 ? data.readFloatLE(4 * index) : data.readDoubleLE(8 * index),
  );
}
