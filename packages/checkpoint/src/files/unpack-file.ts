import { randomUUID } from 'node:crypto';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { SecateurError, throwIfCancelled } from '@secateur/core';
import { errorCode, withFileErrors } from './file-errors.js';
import { InputFile } from './input-file.js';
import type { ReadableFile } from './readable-file.js';
import { unpackZstd } from './unpack-zstd.js';

const PART_BYTES = 1 << 20;

export interface UnpackOptions {
  readonly compression: 'gzip' | 'zstd';
  /** Unpacked bytes that are taken at most: a small file can hold any number of them. */
  readonly maximumBytes: number;
  /** What to do about a file that holds more. */
  readonly remedy: string;
  readonly signal?: AbortSignal | undefined;
}

/**
 * What a compressed file holds, to be read at any position. It lies in a file without a name in the temporary folder (TMPDIR), which is gone
 * with its handle, however the process ends. Errors name the compressed file, which stays the caller's.
 */
export async function unpackFile(packed: ReadableFile, options: UnpackOptions): Promise<ReadableFile> {
  const { handle, where } = await openTemporary();
  try {
    let bytes = 0;
    for await (const part of unpack(packed, options)) {
      throwIfCancelled(options.signal);
      bytes += part.byteLength;
      if (bytes > options.maximumBytes) throw tooLarge(packed.path, options);
      await withFileErrors('unpack to', where, () => writeAll(handle, part));
    }
    return await InputFile.adopt(packed.path, handle);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function openTemporary(): Promise<{ readonly handle: FileHandle; readonly where: string }> {
  const where = `the temporary folder ${tmpdir()}`;
  const path = join(tmpdir(), `secateur-${randomUUID()}`);
  const handle = await withFileErrors('unpack to', where, () => open(path, 'wx+', 0o600));
  await unlink(path);
  return { handle, where };
}

function unpack(packed: ReadableFile, { compression, signal }: UnpackOptions): AsyncIterable<Uint8Array> {
  return compression === 'gzip' ? unpackGzip(packed, signal) : unpackZstd(packed, signal);
}

async function* unpackGzip(packed: ReadableFile, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  if (packed.bytes === 0) throw new SecateurError('INVALID_DATA', `${packed.path}: it is not a whole gzip file: it is empty.`);
  const gunzip = createGunzip({ chunkSize: PART_BYTES });
  // What fails here is thrown where the parts are read.
  pipeline(readParts(packed, signal), gunzip).catch(() => undefined);
  try {
    for await (const part of gunzip) yield part as Uint8Array;
  } catch (error) {
    if (errorCode(error)?.startsWith('Z_') !== true) throw error;
    throw new SecateurError('INVALID_DATA', `${packed.path}: it is not a whole gzip file: ${(error as Error).message}.`, { cause: error });
  }
}

async function* readParts(file: ReadableFile, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  for (let position = 0; position < file.bytes; position += PART_BYTES) {
    const part = Buffer.allocUnsafeSlow(Math.min(PART_BYTES, file.bytes - position));
    await file.readInto(part, position, signal);
    yield part;
  }
}

async function writeAll(handle: FileHandle, part: Uint8Array): Promise<void> {
  for (let done = 0; done < part.byteLength;) done += (await handle.write(part, done)).bytesWritten;
}

function tooLarge(path: string, { maximumBytes, remedy }: UnpackOptions): SecateurError {
  return new SecateurError('INVALID_DATA', `${path}: unpacked it has more than the limit of ${maximumBytes} bytes; ${remedy}.`);
}
