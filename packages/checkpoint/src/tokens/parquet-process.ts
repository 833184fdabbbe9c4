import { SecateurError } from '@secateur/core';
import { Decompress } from 'fzstd';
import { parquetMetadataAsync, parquetRead, parquetSchema, type AsyncBuffer, type Compressors, type FileMetaData } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { MAXIMUM_ZSTD_WINDOW_BYTES, zstdWindowBytes } from '../files/zstd-window.js';
import { serveRequests, type Ask } from '../isolation/serve-requests.js';
import { MAXIMUM_GROUP_BYTES, type ParquetQuestion, type ParquetRequest, type RowGroup, type TextCell } from './parquet-messages.js';

/** Rows of a group, each of which takes memory even when it is empty, and of a file. */
const MAXIMUM_GROUP_ROWS = 1 << 22;
const MAXIMUM_ROWS = 2 ** 32 - 1;

interface OpenFile {
  readonly path: string;
  readonly textField: string;
  readonly buffer: AsyncBuffer;
  readonly metadata: FileMetaData;
  readonly groups: readonly RowGroup[];
}

const files = new Map<number, OpenFile>();

serveRequests(async (request: ParquetRequest, ask) => {
  if (request.kind === 'open') return open(request, ask);
  const file = files.get(request.file);
  const group = file?.groups[request.group];
  if (file === undefined || group === undefined) throw new Error('A row group was asked for that nobody opened.');
  return readGroup(file, group);
});

/** Its row groups. */
async function open({ file, path, bytes, textField }: Extract<ParquetRequest, { kind: 'open' }>, ask: Ask): Promise<readonly RowGroup[]> {
  const readPart = async (from: number, to: number): Promise<ArrayBuffer> => {
    if (!(from >= 0 && from <= to && to <= bytes && to - from <= MAXIMUM_GROUP_BYTES)) {
      throw new Error(`bytes ${from} to ${to} cannot be a part of it`);
    }
    const question: ParquetQuestion = { file, from, to };
    const part = (await ask(question)) as Uint8Array<ArrayBuffer>;
    return part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength);
  };
  const buffer: AsyncBuffer = {
    byteLength: bytes,
    slice: (from, to = bytes) => {
      const part = readPart(from, to);
      // The library asks for several parts at once and leaves the others alone when it fails; nobody would handle their errors.
      part.catch(() => undefined);
      return part;
    },
  };
  const metadata = await withParquetErrors(path, () => parquetMetadataAsync(buffer, { parsers: { stringFromBytes: keepBytes } }));
  const groups = await withParquetErrors(path, async () => describeGroups(path, metadata, textField));
  files.set(file, { path, textField, buffer, metadata, groups });
  return groups;
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
    if (!(rows >= 0 && rows <= MAXIMUM_GROUP_ROWS)) {
      throw fail(`row group ${index} has ${rows} rows; there may be 0 to ${MAXIMUM_GROUP_ROWS}, write the file with smaller row groups`);
    }
    const bytes = Math.max(Number(chunk.total_uncompressed_size), Number(chunk.total_compressed_size));
    if (!(bytes >= 0 && bytes <= MAXIMUM_GROUP_BYTES)) {
      throw fail(
        `the text of row group ${index} has ${bytes} bytes, more than the limit of ${MAXIMUM_GROUP_BYTES}; write the file with smaller row groups`,
      );
    }
    firstRow += rows;
    if (firstRow > MAXIMUM_ROWS) throw fail(`it has more than ${MAXIMUM_ROWS} rows`);
    return { index, firstRow: firstRow - rows, rows, bytes };
  });
}

/** The text column of a row group, not yet decoded. */
async function readGroup(
  { path, textField, buffer, metadata }: OpenFile,
  { index, firstRow, rows }: RowGroup,
): Promise<readonly TextCell[]> {
  let cells: TextCell[] = [];
  await withParquetErrors(`${path}, row group ${index}`, () =>
    parquetRead({
      file: buffer,
      metadata,
      columns: [textField],
      rowStart: firstRow,
      rowEnd: firstRow + rows,
      compressors: limitCompressors(MAXIMUM_GROUP_BYTES),
      parsers: { stringFromBytes: keepBytes },
      onComplete: (found) => (cells = found.map(([cell]) => copyOf(cell))),
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
  const windowBytes = zstdWindowBytes(input);
  if (windowBytes > MAXIMUM_ZSTD_WINDOW_BYTES) throw new Error(`a page has a window of ${windowBytes} bytes`);
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

function keepBytes(bytes: Uint8Array): Uint8Array {
  return bytes;
}

/** A part of a page would be sent with the whole page. */
function copyOf(cell: unknown): TextCell {
  return cell instanceof Uint8Array ? cell.slice() : undefined;
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
