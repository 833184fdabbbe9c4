import { SecateurError } from '@secateur/core';
import { Decompress } from 'fzstd';
import loadXxhash from 'xxhash-wasm';
import type { ReadableFile } from './readable-file.js';
import { MAXIMUM_ZSTD_WINDOW_BYTES, zstdWindowBytes } from './zstd-window.js';

/** Frame format: RFC 8878. */
const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAXIMUM_HEADER_BYTES = 14;
const MAXIMUM_BLOCK_BYTES = 1 << 17;
/**
 * The decoder moves its window for every block, also for one that holds nothing. Blocks of real files are large for their windows, those of
 * hostile ones need not be: what is moved beyond so many times the content is limited.
 */
const MOVED_PER_BYTE = 2048;
const MAXIMUM_MOVED_BYTES = 2 ** 36;
const RUN_BLOCK = 1;
const CHECKSUM_BYTES = 4;
const READ_BYTES = 1 << 20;

interface FrameHeader {
  readonly bytes: number;
  readonly windowBytes: number;
  readonly hasChecksum: boolean;
}

/**
 * What a .zst file holds, block by block. fzstd decodes blocks, but takes a window of any size and checks no checksum; so frames are walked
 * here and handed to it one block at a time.
 */
export async function* unpackZstd(file: ReadableFile, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = new ForwardReader(file, signal);
  const xxhash = await loadXxhash();
  if (file.bytes === 0) throw reader.fail('it is empty');
  while (!reader.atEnd) {
    const magic = (await reader.peek(4)).readUInt32LE();
    // The last half byte of the magic number is free.
    if (magic >>> 4 === SKIPPABLE_MAGIC >>> 4) {
      await reader.take(4);
      reader.skip((await reader.take(4)).readUInt32LE());
      continue;
    }
    if (magic !== FRAME_MAGIC) throw reader.fail('there is no frame where one should begin');
    const hash = xxhash.create64();
    for await (const block of unpackFrame(reader)) {
      if (block.checksum === undefined) {
        hash.update(block.content);
        yield block.content;
      } else if (block.checksum !== Number(hash.digest() & 0xffffffffn)) {
        throw reader.fail('the content does not match its checksum');
      }
    }
  }
}

type FramePart = { readonly content: Uint8Array; readonly checksum?: undefined } | { readonly checksum: number };

/** The blocks of a frame, then its checksum if it has one. */
async function* unpackFrame(reader: ForwardReader): AsyncGenerator<FramePart> {
  const header = readFrameHeader(await reader.peekAtMost(MAXIMUM_HEADER_BYTES + 4), reader);
  const unpacked: Uint8Array[] = [];
  const decoder = new Decompress((content) => unpacked.push(content));
  // The decoder keeps what it is given until it has a whole block.
  const decode = (bytes: Uint8Array, last: boolean): void => {
    try {
      decoder.push(bytes, last);
    } catch (error) {
      throw reader.fail(error instanceof Error ? error.message : String(error), error);
    }
  };
  decode(Buffer.from(await reader.take(header.bytes)), false);
  let movedBytes = 0;
  for (let last = false; !last;) {
    const blockHeader = (await reader.peek(3)).readUIntLE(0, 3);
    last = (blockHeader & 1) === 1;
    const bytes = ((blockHeader >> 1) & 3) === RUN_BLOCK ? 1 : blockHeader >> 3;
    if (bytes > MAXIMUM_BLOCK_BYTES) throw reader.fail(`a block of ${bytes} bytes is too large`);
    const checksumBytes = last && header.hasChecksum ? CHECKSUM_BYTES : 0;
    const block = Buffer.from(await reader.take(3 + bytes + checksumBytes));
    decode(block, last);
    movedBytes += header.windowBytes;
    for (const content of unpacked.splice(0)) {
      movedBytes -= MOVED_PER_BYTE * content.byteLength;
      yield { content };
    }
    if (movedBytes > MAXIMUM_MOVED_BYTES) throw reader.fail('its blocks are too small for its window; compress it anew with zstd');
    if (checksumBytes > 0) yield { checksum: block.readUInt32LE(3 + bytes) };
  }
}

function readFrameHeader(content: Buffer, reader: ForwardReader): FrameHeader {
  const descriptor = content[4] ?? 0;
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const sizeAt = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes;
  const bytes = sizeAt + sizeBytes;
  if (content.byteLength < bytes) throw reader.fail('it ends inside a frame');
  const windowBytes = zstdWindowBytes(content);
  if (windowBytes > MAXIMUM_ZSTD_WINDOW_BYTES) {
    throw reader.fail(
      `a window of ${windowBytes} bytes is above the limit of ${MAXIMUM_ZSTD_WINDOW_BYTES}; compress it without --long or --ultra`,
    );
  }
  if (content.subarray(sizeAt - dictionaryBytes, sizeAt).some((byte) => byte !== 0)) {
    throw reader.fail('it needs a dictionary, which is not offered; compress it without one');
  }
  return { bytes, windowBytes, hasChecksum: (descriptor & 4) !== 0 };
}

/** Reads a file from its begin to its end through one buffer. */
class ForwardReader {
  private buffer = Buffer.alloc(0);
  private position = 0;

  constructor(
    private readonly file: ReadableFile,
    private readonly signal: AbortSignal | undefined,
  ) {}

  get atEnd(): boolean {
    return this.position >= this.file.bytes && this.buffer.byteLength === 0;
  }

  /** The next bytes, which stay the next; valid until the next call. */
  async peek(bytes: number): Promise<Buffer> {
    const found = await this.peekAtMost(bytes);
    if (found.byteLength < bytes) throw this.fail('it is cut');
    return found;
  }

  /** The same, or what is left of the file. */
  async peekAtMost(bytes: number): Promise<Buffer> {
    const missing = Math.min(bytes - this.buffer.byteLength, this.file.bytes - this.position);
    if (missing > 0) {
      const more = Buffer.allocUnsafeSlow(Math.min(Math.max(READ_BYTES, missing), this.file.bytes - this.position));
      await this.file.readInto(more, this.position, this.signal);
      this.position += more.byteLength;
      this.buffer = Buffer.concat([this.buffer, more]);
    }
    return this.buffer.subarray(0, bytes);
  }

  async take(bytes: number): Promise<Buffer> {
    const taken = await this.peek(bytes);
    this.buffer = this.buffer.subarray(bytes);
    return taken;
  }

  skip(bytes: number): void {
    const buffered = Math.min(bytes, this.buffer.byteLength);
    this.buffer = this.buffer.subarray(buffered);
    this.position += bytes - buffered;
    if (this.position > this.file.bytes) throw this.fail('it is cut');
  }

  fail(what: string, cause?: unknown): SecateurError {
    return new SecateurError('INVALID_DATA', `${this.file.path}: it is not a whole zstd file: ${what}.`, { cause });
  }
}
