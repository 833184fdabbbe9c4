import { SecateurError } from '@secateur/core';
import { JsonReader } from '../safetensors/json-reader.js';
import type { ReadableFile } from './readable-file.js';
import { decodeText, requireTextSize } from './text.js';

const READ_BYTES = 1 << 20;
const LINE_FEED = 0x0a;
/** A longer line is walked through before it is parsed: parsed, a line of brackets takes many times its size. */
const SMALL_LINE_BYTES = 1 << 20;

/** A line of a .jsonl file that is not blank. */
export interface JsonLine {
  /** From 1. */
  readonly line: number;
  /** First byte in the file. */
  readonly start: number;
  readonly bytes: number;
  readonly value: unknown;
}

/** The values of a .jsonl file; what is held is one line and one part of the file. */
export async function* readJsonLines(file: ReadableFile, signal?: AbortSignal): AsyncGenerator<JsonLine> {
  for await (const { line, start, content } of readLines(file, signal)) {
    if (isBlank(content)) continue;
    yield { line, start, bytes: content.byteLength, value: parseJsonLine(content, placeOf(file.path, line)) };
  }
}

/** Names a line in errors. */
export function placeOf(path: string, line: number): string {
  return `${path}, line ${line}`;
}

export function parseJsonLine(content: Uint8Array, where: string): unknown {
  const text = decodeText(content, where);
  if (content.byteLength > SMALL_LINE_BYTES) requireFewValues(text, where);
  try {
    return JSON.parse(text);
  } catch {
    throw new SecateurError('INVALID_DATA', `${where}: it is not valid JSON.`);
  }
}

function requireFewValues(text: string, where: string): void {
  const reader = new JsonReader(text, (what) => new SecateurError('INVALID_DATA', `${where}: ${what}; keep the text alone.`));
  reader.skip('the line');
  reader.end();
}

async function* readLines(
  file: ReadableFile,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ readonly line: number; readonly start: number; readonly content: Buffer }> {
  const part = Buffer.allocUnsafeSlow(READ_BYTES);
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let start = 0;
  let line = 1;
  for (let position = 0; position < file.bytes; position += READ_BYTES) {
    const filled = part.subarray(0, Math.min(READ_BYTES, file.bytes - position));
    await file.readInto(filled, position, signal);
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
      requireTextSize(placeOf(file.path, line), pendingBytes);
    }
  }
  if (pending.length > 0) yield { line, start, content: Buffer.concat(pending) };
}

function isBlank(content: Buffer): boolean {
  return content.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}
