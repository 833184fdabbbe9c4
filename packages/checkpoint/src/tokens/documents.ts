import { extname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { InputFile, type InputOptions } from '../files/input-file.js';
import { decodeText, parseJsonLine, placeOf, readJsonLines, requireTextSize } from '../files/json-lines.js';
import { joinWikiTextRows } from './wikitext.js';

const MAXIMUM_DOCUMENTS = 50_000_000;

/** The documents of a text file, read one at a time. */
export interface Documents {
  readonly path: string;
  readonly count: number;
  /** The text of a document. */
  read(index: number): Promise<string>;
  close(): Promise<void>;
}

/**
 * Opens a .txt file (one document as it is), a .raw file (one document, the rows of WikiText joined) or a .jsonl file (a document per
 * line, every line is checked).
 */
export async function openDocuments(path: string, options: InputOptions): Promise<Documents> {
  const file = await InputFile.open(path, options);
  try {
    switch (extname(path).toLowerCase()) {
      case '.txt':
        return openText(file, (text) => text);
      case '.raw':
        return openText(file, joinWikiTextRows);
      case '.jsonl':
        return await openJsonLines(file);
      default:
        throw new SecateurError('INVALID_DATA', `${path}: the data must be a .txt, .raw, .jsonl or .safetensors file.`);
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

function openText(file: InputFile, prepare: (text: string) => string): Documents {
  const read = async (): Promise<string> => {
    requireTextSize(file.path, file.bytes);
    const content = Buffer.allocUnsafeSlow(file.bytes);
    await file.readInto(content, 0);
    return prepare(decodeText(content, file.path));
  };
  return { path: file.path, count: 1, read, close: () => file.close() };
}

async function openJsonLines(file: InputFile): Promise<Documents> {
  const lines: { readonly line: number; readonly start: number; readonly bytes: number }[] = [];
  for await (const { line, start, bytes, value } of readJsonLines(file)) {
    textOf(value, placeOf(file.path, line));
    if (lines.length === MAXIMUM_DOCUMENTS)
      throw new SecateurError('INVALID_DATA', `${file.path}: it has more than ${MAXIMUM_DOCUMENTS} documents.`);
    lines.push({ line, start, bytes });
  }
  const read = async (index: number): Promise<string> => {
    const found = lines[index];
    if (found === undefined) throw new RangeError(`${file.path} has no document ${index}.`);
    const { line, start, bytes } = found;
    const content = Buffer.allocUnsafeSlow(bytes);
    await file.readInto(content, start);
    const where = placeOf(file.path, line);
    return textOf(parseJsonLine(content, where), where);
  };
  return { path: file.path, count: lines.length, read, close: () => file.close() };
}

function textOf(value: unknown, where: string): string {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${where}: ${what}.`);
  if (typeof value !== 'object' || value === null || !('text' in value)) throw fail('it has no field "text"');
  if (typeof value.text !== 'string') throw fail('the field "text" is not a string');
  return value.text;
}
