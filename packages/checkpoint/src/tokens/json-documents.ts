import { SecateurError } from '@secateur/core';
import type { ReadableFile } from '../files/readable-file.js';
import { parseJsonLine, placeOf, readJsonLines } from '../files/json-lines.js';
import type { DocumentOptions, Documents } from './documents.js';

const MAXIMUM_DOCUMENTS = 50_000_000;

/** The documents of a .jsonl file, one per line; every line is checked. The file becomes theirs. */
export async function openJsonLines(file: ReadableFile, { textField, signal }: DocumentOptions): Promise<Documents> {
  const lines: { readonly line: number; readonly start: number; readonly bytes: number }[] = [];
  for await (const { line, start, bytes, value } of readJsonLines(file, signal)) {
    textOf(value, textField, placeOf(file.path, line));
    if (lines.length === MAXIMUM_DOCUMENTS)
      throw new SecateurError('INVALID_DATA', `${file.path}: it has more than ${MAXIMUM_DOCUMENTS} documents.`);
    lines.push({ line, start, bytes });
  }
  const read = async (index: number): Promise<string> => {
    const found = lines[index];
    if (found === undefined) throw new RangeError(`${file.path} has no document ${index}.`);
    const { line, start, bytes } = found;
    const content = Buffer.allocUnsafeSlow(bytes);
    await file.readInto(content, start, signal);
    const where = placeOf(file.path, line);
    return textOf(parseJsonLine(content, where), textField, where);
  };
  return { count: lines.length, read, close: () => file.close() };
}

function textOf(value: unknown, textField: string, where: string): string {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${where}: ${what}.`);
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, textField)) {
    throw fail(`it has no field "${textField}"; name the field that holds the text (--text-field)`);
  }
  const text = (value as Readonly<Record<string, unknown>>)[textField];
  if (typeof text !== 'string') throw fail(`the field "${textField}" is not a string`);
  return text;
}
