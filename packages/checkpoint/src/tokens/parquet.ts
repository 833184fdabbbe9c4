import { SecateurError } from '@secateur/core';
import type { ReadableFile } from '../files/readable-file.js';
import { decodeText, requireTextSize } from '../files/text.js';
import { IsolatedProcess } from '../isolation/isolated-process.js';
import type { DocumentOptions, Documents } from './documents.js';
import type { ParquetQuestion, ParquetRequest, RowGroup, TextCell } from './parquet-messages.js';

/** The same file whether this one runs compiled or as source. */
const PROCESS = new URL('../../dist/tokens/parquet-process.js', import.meta.url);
const MAGIC = 'PAR1';
const TAIL_BYTES = 8;
const MAXIMUM_FOOTER_BYTES = 64 << 20;
/** Text of row groups that is kept for the next documents; one group always is. */
const REMEMBERED_BYTES = 256 << 20;
/** To start and to read a footer or a small group, and for each MiB that a group says it holds: about twenty times what real files need. */
const START_MS = 60_000;
/** For the cells of a group, which are objects beside their text. */
const HEAP_MEBIBYTES = 2048;
const MS_PER_MIB = 2_000;

/**
 * Reads .parquet files in a process of its own: five bytes of them can say a value two thousand million times, which the library then writes
 * out. It is started with the first file and must be closed.
 */
export class ParquetReader {
  private process: IsolatedProcess | undefined;
  private readonly files: ReadableFile[] = [];

  constructor(
    private readonly signal?: AbortSignal,
    private readonly heapMebibytes: number = HEAP_MEBIBYTES,
  ) {}

  /** The documents of a file, one per row. Only the column with the text is read, row group by row group. The file becomes theirs. */
  async open(file: ReadableFile, { textField }: DocumentOptions): Promise<Documents> {
    await requireFooter(file, this.signal);
    const id = this.files.push(file) - 1;
    const groups = (await this.request(
      { kind: 'open', file: id, path: file.path, bytes: file.bytes, textField },
      file.path,
      0,
    )) as RowGroup[];
    const read = rememberGroups(
      async ({ index, bytes }) => (await this.request({ kind: 'read', file: id, group: index }, file.path, bytes)) as TextCell[],
    );
    const last = groups.at(-1);
    return {
      count: last === undefined ? 0 : last.firstRow + last.rows,
      read: async (index) => {
        const group = groups.find(({ firstRow, rows }) => index < firstRow + rows);
        if (group === undefined) throw new RangeError(`${file.path} has no row ${index}.`);
        const cell = (await read(group))[index - group.firstRow];
        const where = `${file.path}, row ${index}`;
        if (cell === undefined) throw new SecateurError('INVALID_DATA', `${where}: the column "${textField}" holds no text.`);
        requireTextSize(where, cell.byteLength);
        return decodeText(cell, where);
      },
      close: () => file.close(),
    };
  }

  async close(): Promise<void> {
    await this.process?.close();
  }

  private request(request: ParquetRequest, path: string, bytes: number): Promise<unknown> {
    this.process ??= new IsolatedProcess({
      module: PROCESS,
      signal: this.signal,
      heapMebibytes: this.heapMebibytes,
      answer: (question) => this.answer(question),
    });
    const timeoutMs = START_MS + (MS_PER_MIB * bytes) / 2 ** 20;
    const onTimeout = (): SecateurError =>
      new SecateurError(
        'INVALID_DATA',
        `${path}: reading it took more than ${Math.round(timeoutMs / 1000)} s and was stopped; is it broken?`,
      );
    return this.process.request(request, { timeoutMs, onTimeout, subject: path });
  }

  private async answer({ file, from, to }: ParquetQuestion): Promise<Uint8Array> {
    const input = this.files[file];
    if (input === undefined) throw new Error('Bytes of a file were asked for that nobody opened.');
    const part = new Uint8Array(to - from);
    await input.readInto(part, from, this.signal);
    return part;
  }
}

/** Refuses by a few bytes what is no Parquet file at all. */
async function requireFooter(file: ReadableFile, signal: AbortSignal | undefined): Promise<void> {
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
