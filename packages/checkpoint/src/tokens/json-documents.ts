import { SecateurError } from '@secateur/core';
import type { ReadableFile } from '../files/readable-file.js';
import { parseJsonLine, placeOf, readJsonLines, type JsonLine } from '../files/json-lines.js';
import { requireFewDocuments, type DocumentOptions, type Documents } from './documents.js';

/** The documents of a .jsonl file, one per line; every line is checked. The file becomes theirs. */
export async function openJsonLines(file: ReadableFile, { textField, signal }: DocumentOptions): Promise<Documents> {
  const lines = new LinePlaces();
  for await (const { value, ...place } of readJsonLines(file, signal)) {
    textOf(value, textField, placeOf(file.path, place.line));
    lines.add(place);
    requireFewDocuments(file.path, lines.count);
  }
  const read = async (index: number): Promise<string> => {
    if (index >= lines.count) throw new RangeError(`${file.path} has no document ${index}.`);
    const { line, start, bytes } = lines.at(index);
    const content = Buffer.allocUnsafeSlow(bytes);
    await file.readInto(content, start, signal);
    const where = placeOf(file.path, line);
    return textOf(parseJsonLine(content, where), textField, where);
  };
  return { count: lines.count, read, close: () => file.close() };
}

type LinePlace = Pick<JsonLine, 'line' | 'start' | 'bytes'>;

/** Where lines are, as numbers side by side: as objects those of a small packed file could fill the heap. */
class LinePlaces {
  count = 0;
  private lines = new Float64Array(1024);
  private starts = new Float64Array(1024);
  private sizes = new Uint32Array(1024);

  add({ line, start, bytes }: LinePlace): void {
    if (this.count === this.lines.length) this.grow();
    this.lines[this.count] = line;
    this.starts[this.count] = start;
    this.sizes[this.count] = bytes;
    this.count += 1;
  }

  at(index: number): LinePlace {
    return { line: this.lines[index]!, start: this.starts[index]!, bytes: this.sizes[index]! };
  }

  private grow(): void {
    const { lines, starts, sizes } = this;
    this.lines = new Float64Array(2 * this.count);
    this.starts = new Float64Array(2 * this.count);
    this.sizes = new Uint32Array(2 * this.count);
    this.lines.set(lines);
    this.starts.set(starts);
    this.sizes.set(sizes);
  }
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
