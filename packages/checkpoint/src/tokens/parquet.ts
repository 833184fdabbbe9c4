import { SecateurError } from '@secateur/core';
import { Decompress } from 'fzstd';
import { parquetMetadataAsync, parquetRead, parquetSchema, type AsyncBuffer, type Compressors, type FileMetaData } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import type { ReadableFile } from '../files/readable-file.js';
import type { DocumentOptions, Documents } from './documents.js';
import { decodeText, requireTextSize } from '../files/text.js';

const MAGIC = 'PAR1';
const TAIL_BYTES = 8;
const MAXIMUM_FOOTER_BYTES = 64 << 20;
/** The text of a row group is unpacked in memory, all at once. */
const MAXIMUM_GROUP_BYTES = 256 << 20;
/** Text of row groups that is kept for the next documents; one group always is. */
const REMEMBERED_BYTES = 256 << 20;

interface RowGroup {
  readonly index: number;
  readonly firstRow: number;
  readonly rows: number;
  readonly bytes: number;
}

type TextCell = Uint8Array | null | undefined;

/** The documents of a .parquet file, one per row. Only the column with the text is read, row group by row group. The file becomes theirs. */
export async function openParquet(file: ReadableFile, { textField, signal }: DocumentOptions): Promise<Documents> {
  const metadata = await readMetadata(file, signal);
  const groups = describeGroups(file.path, metadata, textField);
  const read = rememberGroups((group) => readGroup(file, metadata, group, textField, signal));
  const last = groups.at(-1);
  return {
    count: last === undefined ? 0 : last.firstRow + last.rows,
    read: async (index) => {
      const group = groups.find(({ firstRow, rows }) => index < firstRow + rows);
      if (group === undefined) throw new RangeError(`${file.path} has no row ${index}.`);
      const cell = (await read(group))[index - group.firstRow];
      const where = `${file.path}, row ${index}`;
      if (!(cell instanceof Uint8Array)) throw new SecateurError('INVALID_DATA', `${where}: the column "${textField}" holds no text.`);
      requireTextSize(where, cell.byteLength);
      return decodeText(cell, where);
    },
    close: () => file.close(),
  };
}

async function readMetadata(file: ReadableFile, signal: AbortSignal | undefined): Promise<FileMetaData> {
  const tail = Buffer.alloc(Math.min(TAIL_BYTES, file.bytes));
  await file.readInto(tail, file.bytes - tail.byteLength, signal);
  if (tail.toString('latin1', 4) !== MAGIC) {
    throw new SecateurError('INVALID_DATA', `${file.path}: it does not end with ${MAGIC}, so it is no whole Parquet file.`);
  }
  const footerBytes = tail.readUInt32LE();
  if (footerBytes > MAXIMUM_FOOTER_BYTES) {
    throw new SecateurError(
      'INVALID_DATA',
      `${file.path}: a footer of ${footerBytes} bytes is above the limit of ${MAXIMUM_FOOTER_BYTES}.`,
    );
  }
  return withParquetErrors(file.path, () => parquetMetadataAsync(toAsyncBuffer(file, signal), { parsers: { stringFromBytes: keepBytes } }));
}

function describeGroups(path: string, metadata: FileMetaData, textField: string): RowGroup[] {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}: ${what}.`);
  const columns = parquetSchema(metadata).children;
  const column = columns.find(({ element }) => element.name === textField);
  if (column === undefined) {
    const names = columns.map(({ element }) => element.name).join(', ');
    throw fail(`it has no column "${textField}" but ${names}; name the one that holds the text (--text-field)`);
  }
  const { type, repetition_type: repetition, converted_type: converted } = column.element;
  if (type !== 'BYTE_ARRAY' || repetition === 'REPEATED' || (converted !== undefined && converted !== 'UTF8')) {
    throw fail(`the column "${textField}" is no column of text`);
  }
  let firstRow = 0;
  return metadata.row_groups.map((group, index) => {
    const chunk = group.columns.find(({ meta_data: data }) => data?.path_in_schema[0] === textField)?.meta_data;
    if (chunk === undefined) throw fail(`row group ${index} has no column "${textField}"`);
    const rows = Number(group.num_rows);
    const bytes = Math.max(Number(chunk.total_uncompressed_size), Number(chunk.total_compressed_size));
    if (bytes > MAXIMUM_GROUP_BYTES) {
      throw fail(
        `the text of row group ${index} has ${bytes} bytes, more than the limit of ${MAXIMUM_GROUP_BYTES}; write the file with smaller row groups`,
      );
    }
    firstRow += rows;
    return { index, firstRow: firstRow - rows, rows, bytes };
  });
}

/** The text column of a row group, not yet decoded. */
async function readGroup(
  file: ReadableFile,
  metadata: FileMetaData,
  { index, firstRow, rows }: RowGroup,
  textField: string,
  signal: AbortSignal | undefined,
): Promise<readonly TextCell[]> {
  let cells: TextCell[] = [];
  await withParquetErrors(`${file.path}, row group ${index}`, () =>
    parquetRead({
      file: toAsyncBuffer(file, signal),
      metadata,
      columns: [textField],
      rowStart: firstRow,
      rowEnd: firstRow + rows,
      compressors: limitCompressors(MAXIMUM_GROUP_BYTES),
      parsers: { stringFromBytes: keepBytes },
      onComplete: (found) => (cells = found.map(([cell]) => cell as TextCell)),
    }),
  );
  return cells;
}

/** Decoders of all codecs that unpack so many bytes together at most: what a page says of its size is read before it is unpacked. */
function limitCompressors(maximumBytes: number): Compressors {
  let bytes = 0;
  const limited = Object.entries({ ...compressors, ZSTD: unpackZstdPage }).map(([codec, unpack]) => [
    codec,
    (input: Uint8Array, length: number): Uint8Array => {
      bytes += length;
      if (length < 0 || bytes > maximumBytes) throw new Error(`its pages hold more than the limit of ${maximumBytes} bytes`);
      return unpack(input, length);
    },
  ]);
  return Object.fromEntries(limited) as Compressors;
}

/** The library's own decoder of zstd makes as much as the page holds, whatever it says. */
function unpackZstdPage(input: Uint8Array, length: number): Uint8Array {
  const page = new Uint8Array(length);
  let filled = 0;
  const decoder = new Decompress((part) => {
    if (filled + part.byteLength > length) throw new Error(`a page holds more than the ${length} bytes it says`);
    page.set(part, filled);
    filled += part.byteLength;
  });
  decoder.push(input, true);
  return page.subarray(0, filled);
}

/** Reads groups, keeping a bounded number of bytes for the next documents. */
function rememberGroups(read: (group: RowGroup) => Promise<readonly TextCell[]>): (group: RowGroup) => Promise<readonly TextCell[]> {
  const remembered = new Map<RowGroup, readonly TextCell[]>();
  let rememberedBytes = 0;
  return async (group) => {
    const known = remembered.get(group);
    if (known !== undefined) return known;
    if (rememberedBytes + group.bytes > REMEMBERED_BYTES) {
      remembered.clear();
      rememberedBytes = 0;
    }
    const cells = await read(group);
    remembered.set(group, cells);
    rememberedBytes += group.bytes;
    return cells;
  };
}

function toAsyncBuffer(file: ReadableFile, signal: AbortSignal | undefined): AsyncBuffer {
  return {
    byteLength: file.bytes,
    slice: async (from, to = file.bytes) => {
      if (!(from >= 0 && from <= to && to <= file.bytes && to - from <= MAXIMUM_GROUP_BYTES)) {
        throw new Error(`bytes ${from} to ${to} cannot be a part of it`);
      }
      const part = new ArrayBuffer(to - from);
      await file.readInto(new Uint8Array(part), from, signal);
      return part;
    },
  };
}

function keepBytes(bytes: Uint8Array): Uint8Array {
  return bytes;
}

/** The library tells of broken files by errors of all kinds. */
async function withParquetErrors<T>(where: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof SecateurError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SecateurError('INVALID_DATA', `${where}: it is no Parquet file that can be read: ${reason}.`, { cause: error });
  }
}
