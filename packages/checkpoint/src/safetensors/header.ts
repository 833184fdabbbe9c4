import { SecateurError, type ErrorReason } from '@secateur/core';
import type { DataType } from '@secateur/proto/model';
import type { ReadableFile } from '../files/readable-file.js';
import { dtypeBits, toDataType } from './dtype.js';
import { JsonReader, quote } from './json-reader.js';

/** The limits of the format and of what a real checkpoint can need. */
const MAXIMUM_HEADER_BYTES = 100 << 20;
const MAXIMUM_TENSORS = 250_000;
const MAXIMUM_DIMENSIONS = 8;
const LENGTH_BYTES = 8;
const ALIGNMENT = 8;

/** Makes the error that says what is wrong with a file. */
type Fail = (what: string) => SecateurError;

/** A tensor of a safetensors file. */
export interface TensorLayout {
  readonly name: string;
  /** As in the file, such as `BF16` or `I64`. */
  readonly dtype: string;
  /** The data type the engine computes with; unspecified for tensors that are only carried along. */
  readonly dataType: DataType;
  readonly shape: readonly number[];
  /** Where its bytes begin in the file. */
  readonly fileOffset: number;
  readonly bytes: number;
}

export interface SafetensorsLayout {
  /** Length field, JSON and padding, byte for byte. */
  readonly header: Buffer;
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorLayout>;
  readonly fileBytes: number;
}

/** Reads and checks the header of a safetensors file: every tensor in range, of the right size, no overlap, no hole. A broken one is `reason`. */
export async function readSafetensorsLayout(file: ReadableFile, reason: ErrorReason = 'INVALID_CHECKPOINT'): Promise<SafetensorsLayout> {
  const fail: Fail = (what) => new SecateurError(reason, `${file.path}: ${what}.`);
  if (file.bytes < LENGTH_BYTES) throw fail(`it has ${file.bytes} bytes, too few for a safetensors file`);
  const lengthField = Buffer.alloc(LENGTH_BYTES);
  await file.readInto(lengthField, 0);
  const headerBytes = lengthField.readBigUInt64LE();
  if (headerBytes > BigInt(MAXIMUM_HEADER_BYTES)) {
    throw fail(`its header of ${headerBytes} bytes is above the limit of ${MAXIMUM_HEADER_BYTES}; it is no safetensors file`);
  }
  if (headerBytes > BigInt(file.bytes - LENGTH_BYTES)) {
    throw fail(
      `its header of ${headerBytes} bytes does not fit the file of ${file.bytes} bytes; the file is truncated or no safetensors file`,
    );
  }
  const header = Buffer.allocUnsafeSlow(LENGTH_BYTES + Number(headerBytes));
  await file.readInto(header, 0);
  const dataStart = header.byteLength;
  const tensors = parseTensors(decodeHeader(header.subarray(LENGTH_BYTES), fail), dataStart, fail);
  checkCoverage(tensors, dataStart, file.bytes, fail);
  return { header, tensors, fileBytes: file.bytes };
}

/** A layout for new tensors in the given order, its header padded with spaces to 8 bytes. */
export function planSafetensorsLayout(
  entries: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[],
  metadata?: Readonly<Record<string, string>>,
): SafetensorsLayout {
  const members: [string, unknown][] = metadata === undefined ? [] : [['__metadata__', metadata]];
  const sized: { name: string; dtype: string; shape: readonly number[]; start: number; bytes: number }[] = [];
  let end = 0;
  for (const { name, dtype, shape } of entries) {
    const bytes = tensorBytes(dtype, shape);
    if (bytes === undefined)
      throw new SecateurError('INTERNAL', `No safetensors tensor can have dtype ${dtype} and shape [${shape.join(', ')}].`);
    sized.push({ name, dtype, shape, start: end, bytes });
    members.push([name, { dtype, shape, data_offsets: [end, end + bytes] }]);
    end += bytes;
  }
  if (new Set(members.map(([name]) => name)).size !== members.length) throw new SecateurError('INTERNAL', 'A tensor is named twice.');
  const json = Buffer.from(`{${members.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`);
  const header = Buffer.alloc(LENGTH_BYTES + Math.ceil(json.byteLength / ALIGNMENT) * ALIGNMENT, ' ');
  header.writeBigUInt64LE(BigInt(header.byteLength - LENGTH_BYTES));
  json.copy(header, LENGTH_BYTES);
  const tensors = sized.map(({ start, ...tensor }) => ({
    ...tensor,
    dataType: toDataType(tensor.dtype),
    fileOffset: header.byteLength + start,
  }));
  return { header, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), fileBytes: header.byteLength + end };
}

function decodeHeader(bytes: Buffer, fail: Fail): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw fail('its header is not valid UTF-8');
  }
}

function parseTensors(text: string, dataStart: number, fail: Fail): Map<string, TensorLayout> {
  const tensors = new Map<string, TensorLayout>();
  let current: string | undefined;
  const failHere: Fail = (what) => fail(current === undefined ? `its header is broken: ${what}` : `tensor ${quote(current)}: ${what}`);
  const reader = new JsonReader(text, failHere);
  reader.object('the header', (name) => {
    if (name === '__metadata__') {
      reader.object('__metadata__', () => reader.string('a metadata value'));
      return;
    }
    if (name === '__proto__') throw fail(`a tensor cannot be named ${quote(name)}`);
    if (tensors.size === MAXIMUM_TENSORS) throw fail(`it holds more than ${MAXIMUM_TENSORS} tensors`);
    current = name;
    tensors.set(name, parseTensor(reader, name, dataStart, failHere));
    current = undefined;
  });
  reader.end();
  return tensors;
}

function parseTensor(reader: JsonReader, name: string, dataStart: number, fail: Fail): TensorLayout {
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  reader.object('its description', (field) => {
    switch (field) {
      case 'dtype':
        dtype = reader.string('its dtype');
        break;
      case 'shape':
        shape = readIntegers(reader, MAXIMUM_DIMENSIONS, 'shape', fail);
        break;
      case 'data_offsets':
        offsets = readIntegers(reader, 2, 'data_offsets', fail);
        break;
      default:
        throw fail(`the field ${quote(field)} is unknown`);
    }
  });
  if (dtype === undefined || shape === undefined || offsets === undefined) throw fail('dtype, shape or data_offsets is missing');
  const [start, end] = offsets;
  if (start === undefined || end === undefined) throw fail('data_offsets must be two integers');
  if (dtypeBits(dtype) === undefined) throw fail(`the dtype ${quote(dtype)} is unknown`);
  const bytes = tensorBytes(dtype, shape);
  if (bytes === undefined) throw fail(`the shape [${shape.join(', ')}] of ${dtype} is not a whole number of bytes below 2^50`);
  if (end < start) throw fail(`data_offsets [${start}, ${end}] end before they begin`);
  if (end - start !== bytes)
    throw fail(`data_offsets hold ${end - start} bytes, the shape [${shape.join(', ')}] of ${dtype} needs ${bytes}`);
  return { name, dtype, dataType: toDataType(dtype), shape, fileOffset: dataStart + start, bytes };
}

function readIntegers(reader: JsonReader, limit: number, what: string, fail: Fail): number[] {
  const values: number[] = [];
  reader.array(what, (index) => {
    if (index === limit) throw fail(`${what} has more than ${limit} entries`);
    values.push(reader.integer(`an entry of ${what}`));
  });
  return values;
}

/** Undefined when the size is no safe integer number of bytes. */
function tensorBytes(dtype: string, shape: readonly number[]): number | undefined {
  let bits = dtypeBits(dtype);
  if (bits === undefined) return undefined;
  if (shape.includes(0)) return 0;
  for (const size of shape) {
    bits *= size;
    if (bits > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return bits % 8 === 0 ? bits / 8 : undefined;
}

/** Tensors must follow one another from the end of the header to the end of the file. */
function checkCoverage(tensors: ReadonlyMap<string, TensorLayout>, dataStart: number, fileBytes: number, fail: Fail): void {
  const ordered = [...tensors.values()].sort((a, b) => a.fileOffset - b.fileOffset || a.bytes - b.bytes);
  let end = dataStart;
  let previous = 'the header';
  for (const { name, fileOffset, bytes } of ordered) {
    if (fileOffset + bytes > fileBytes) {
      throw fail(`tensor ${quote(name)} ends at byte ${fileOffset + bytes}, the file has ${fileBytes}; it is truncated`);
    }
    if (fileOffset < end) throw fail(`tensor ${quote(name)} overlaps ${previous} by ${end - fileOffset} bytes`);
    if (fileOffset > end) throw fail(`${fileOffset - end} bytes between ${previous} and tensor ${quote(name)} belong to no tensor`);
    end = fileOffset + bytes;
    previous = `tensor ${quote(name)}`;
  }
  if (end !== fileBytes) throw fail(`${fileBytes - end} bytes at its end belong to no tensor`);
}
