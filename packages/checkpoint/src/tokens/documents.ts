import { extname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { InputFile, type InputOptions } from '../files/input-file.js';

/** A text is tokenised as a whole, in memory. */
const MAXIMUM_TEXT_BYTES = 64 << 20;
const MAXIMUM_DOCUMENTS = 50_000_000;
const READ_BYTES = 1 << 20;
const LINE_FEED = 0x0a;

/** The documents of a text file, read one at a time. */
export interface Documents {
  readonly path: string;
  readonly count: number;
  /** The text of a document. */
  read(index: number): Promise<string>;
  close(): Promise<void>;
}

/** Opens a .txt file (one document) or a .jsonl file (a document per line, every line is checked). */
export async function openDocuments(path: string, options: InputOptions): Promise<Documents> {
  const file = await InputFile.open(path, options);
  try {
    switch (extname(path).toLowerCase()) {
      case '.txt':
        return openText(file);
      case '.jsonl':
        return await openJsonLines(file);
      default:
        throw new SecateurError('INVALID_DATA', `${path}: the data must be a .txt, .jsonl or .safetensors file.`);
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

function openText(file: InputFile): Documents {
  const read = async (): Promise<string> => {
    requireTextSize(file.path, file.bytes);
    const content = Buffer.allocUnsafeSlow(file.bytes);
    await file.readInto(content, 0);
    return decode(content, file.path);
  };
  return { path: file.path, count: 1, read, close: () => file.close() };
}

async function openJsonLines(file: InputFile): Promise<Documents> {
  const lines: { readonly line: number; readonly start: number; readonly bytes: number }[] = [];
  for await (const { line, start, content } of readLines(file)) {
    if (isBlank(content)) continue;
    parseLine(content, file.path, line);
    if (lines.length === MAXIMUM_DOCUMENTS)
      throw new SecateurError('INVALID_DATA', `${file.path}: it has more than ${MAXIMUM_DOCUMENTS} documents.`);
    lines.push({ line, start, bytes: content.byteLength });
  }
  const read = async (index: number): Promise<string> => {
    const found = lines[index];
    if (found === undefined) throw new RangeError(`${file.path} has no document ${index}.`);
    const { line, start, bytes } = found;
    const content = Buffer.allocUnsafeSlow(bytes);
    await file.readInto(content, start);
    return parseLine(content, file.path, line);
  };
  return { path: file.path, count: lines.length, read, close: () => file.close() };
}

/** The lines of a file, numbered from 1; what is held is one line and one part of the file. */
async function* readLines(file: InputFile): AsyncGenerator<{ readonly line: number; readonly start: number; readonly content: Buffer }> {
  const part = Buffer.allocUnsafeSlow(READ_BYTES);
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let start = 0;
  let line = 1;
  for (let position = 0; position < file.bytes; position += READ_BYTES) {
    const filled = part.subarray(0, Math.min(READ_BYTES, file.bytes - position));
    await file.readInto(filled, position);
    let from = 0;
    for (let end = filled.indexOf(LINE_FEED); end !== -1; end = filled.indexOf(LINE_FEED, from)) {
      const piece = filled.subarray(from, end);
      yield { line, start, content: pending.length === 0 ? piece : Buffer.concat([...pending, piece]) };
      [pending, pendingBytes] = [[], 0];
      from = end + 1;
      start = position + from;
      line += 1;
    }
    if (from < filled.byteLength) {
      pending.push(Buffer.from(filled.subarray(from)));
      pendingBytes += filled.byteLength - from;
      requireTextSize(`${file.path}, line ${line}`, pendingBytes);
    }
  }
  if (pending.length > 0) yield { line, start, content: Buffer.concat(pending) };
}

function parseLine(content: Buffer, path: string, line: number): string {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}, line ${line}: ${what}.`);
  let value: unknown;
  try {
    value = JSON.parse(decode(content, `${path}, line ${line}`));
  } catch (error) {
    if (error instanceof SecateurError) throw error;
    throw fail('it is not valid JSON');
  }
  if (typeof value !== 'object' || value === null || !('text' in value)) throw fail('it has no field "text"');
  if (typeof value.text !== 'string') throw fail('the field "text" is not a string');
  return value.text;
}

function isBlank(content: Buffer): boolean {
  return content.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}

function decode(content: Buffer, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    throw new SecateurError('INVALID_DATA', `${where}: it is not valid UTF-8.`);
  }
}

function requireTextSize(where: string, bytes: number): void {
  if (bytes <= MAXIMUM_TEXT_BYTES) return;
  throw new SecateurError(
    'INVALID_DATA',
    `${where}: a text of ${bytes} bytes is above the limit of ${MAXIMUM_TEXT_BYTES}; split it into documents, one per line of a .jsonl file.`,
  );
}
