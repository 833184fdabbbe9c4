import { setTimeout as sleep } from 'node:timers/promises';
import type { Readable } from 'node:stream';
import { SecateurError, throwIfCancelled } from '@secateur/core';
import { formatStoreUrl, parseStoreUrl, type StoreLocation } from '../files/locations.js';
import type { ReadableFile } from '../files/readable-file.js';
import { BLOCK_BYTES, BlockCache } from './block-cache.js';
import { openStore, type Store } from './client.js';
import { requireObject } from './head-object.js';
import { isPassing, toStoreError, withStoreErrors } from './store-errors.js';

/** Bytes of one request, and requests that a reader has under way at once. */
const RANGE_BYTES = 8 << 20;
const RANGES_AT_ONCE = 4;
/** Blocks that are read ahead of who reads on. */
const BLOCKS_AHEAD = 2;
/** Tries in a row that bring not one byte. */
const MAXIMUM_FAILURES = 5;
const FIRST_PAUSE_MS = 100;

const cache = new BlockCache();

/**
 * An object of a store, read by ranges. Every request asks for the object that was opened (If-Match), so that one that is replaced is an error and
 * never a mixture. A range that breaks off is continued where it ended.
 */
export class StoreObject implements ReadableFile {
  readonly path: string;
  readonly descriptor = undefined;

  private constructor(
    private readonly store: Store,
    private readonly location: StoreLocation,
    readonly bytes: number,
    private readonly etag: string,
  ) {
    this.path = formatStoreUrl(location);
  }

  static async open(url: string): Promise<StoreObject> {
    const location = parseStoreUrl(url);
    const store = await openStore();
    const found = await withStoreErrors('read', url, () => requireObject(store, location));
    const { ContentLength: bytes, ETag: etag } = found;
    if (bytes === undefined || etag === undefined) {
      throw new SecateurError('FAILED_PRECONDITION', `Cannot read ${url}: the store tells no size or no ETag of it.`);
    }
    return new StoreObject(store, location, bytes, etag);
  }

  async readInto(target: Uint8Array, position: number, signal?: AbortSignal): Promise<void> {
    throwIfCancelled(signal);
    if (position + target.byteLength > this.bytes) {
      throw new SecateurError('FAILED_PRECONDITION', `Cannot read ${this.path}: it ends at byte ${this.bytes}.`);
    }
    if (target.byteLength === 0) return;
    if (target.byteLength === this.bytes && this.bytes <= RANGE_BYTES) await this.readRange(target, 0, signal);
    else if (target.byteLength < BLOCK_BYTES) await this.readByBlocks(target, position, signal);
    else await this.readRanges(target, position, signal);
  }

  /** Every request asks for the object that was opened, and fails where that is no longer there. */
  wasChanged(): Promise<boolean> {
    return Promise.resolve(false);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /** Small reads follow each other, mostly. */
  private async readByBlocks(target: Uint8Array, position: number, signal: AbortSignal | undefined): Promise<void> {
    const end = position + target.byteLength;
    for (let index = Math.floor(position / BLOCK_BYTES); index * BLOCK_BYTES < end; ++index) {
      const block = this.block(index);
      for (let ahead = index + 1; ahead <= index + BLOCKS_AHEAD && ahead * BLOCK_BYTES < this.bytes; ++ahead) {
        // Its failure is that of whoever reads it.
        this.block(ahead).catch(() => undefined);
      }
      const start = index * BLOCK_BYTES;
      const content = await block;
      throwIfCancelled(signal);
      const from = Math.max(position, start);
      target.set(content.subarray(from - start, Math.min(end, start + content.byteLength) - start), from - position);
    }
  }

  private block(index: number): Promise<Buffer> {
    const start = index * BLOCK_BYTES;
    // Others may wait for the same block, so nobody's signal stops it.
    return cache.take(`${this.path} ${this.etag} ${index}`, async () => {
      const content = Buffer.allocUnsafeSlow(Math.min(BLOCK_BYTES, this.bytes - start));
      await this.readRange(content, start, undefined);
      return content;
    });
  }

  private async readRanges(target: Uint8Array, position: number, signal: AbortSignal | undefined): Promise<void> {
    const failure = new AbortController();
    const stop = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
    let next = 0;
    const readNext = async (): Promise<void> => {
      while (next < target.byteLength && !failure.signal.aborted) {
        const offset = next;
        next += RANGE_BYTES;
        try {
          await this.readRange(target.subarray(offset, offset + RANGE_BYTES), position + offset, stop);
        } catch (error) {
          // Only the first counts: it is why the others fail.
          failure.abort(error);
        }
      }
    };
    await Promise.all(Array.from({ length: RANGES_AT_ONCE }, readNext));
    if (failure.signal.aborted) throw failure.signal.reason;
  }

  /** Reads a range, and what is missing of it again when the connection breaks. */
  private async readRange(target: Uint8Array, position: number, signal: AbortSignal | undefined): Promise<void> {
    let done = 0;
    for (let failures = 0; done < target.byteLength;) {
      const before = done;
      try {
        for await (const part of await this.request(position + done, position + target.byteLength, signal)) {
          if (done + part.byteLength > target.byteLength)
            throw new SecateurError('CORRUPT_DATA', `Cannot read ${this.path}: the store sent more than was asked for.`);
          target.set(part, done);
          done += part.byteLength;
        }
        if (done === before)
          throw new SecateurError('CORRUPT_DATA', `Cannot read ${this.path}: the store sent nothing from byte ${position + done} on.`);
      } catch (error) {
        throwIfCancelled(signal);
        failures = done > before ? 1 : failures + 1;
        if (!isPassing(error) || failures > MAXIMUM_FAILURES) throw toStoreError('read', this.path, error);
        await sleep(FIRST_PAUSE_MS * 2 ** failures);
      }
    }
  }

  private async request(start: number, end: number, signal: AbortSignal | undefined): Promise<AsyncIterable<Uint8Array>> {
    const { store, etag } = this;
    const { bucket: Bucket, key: Key } = this.location;
    // Stores have checksums of whole objects only.
    const part = start === 0 && end === this.bytes ? { ChecksumMode: 'ENABLED' as const } : { Range: `bytes=${start}-${end - 1}` };
    const command = new store.sdk.GetObjectCommand({ Bucket, Key, IfMatch: etag, ...part });
    const { Body, ETag } = await store.client.send(command, signal === undefined ? {} : { abortSignal: signal });
    // Not every store heeds If-Match.
    if (ETag !== etag) {
      (Body as Readable | undefined)?.destroy();
      throw toStoreError('read', this.path, Object.assign(new Error(), { name: 'PreconditionFailed' }));
    }
    return Body as Readable;
  }
}
