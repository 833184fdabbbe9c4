import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CompletedPart } from '@aws-sdk/client-s3';
import { SecateurError, throwIfCancelled } from '@secateur/core';
import { InputFile } from '../files/input-file.js';
import { parseStoreUrl } from '../files/locations.js';
import { crc32Check, keepsChecksums, md5Check, sha256Check } from './body-checks.js';
import { openStore, type Store } from './client.js';
import { StoreFolder } from './store-folder.js';
import { storeErrorName, toStoreError, withStoreErrors } from './store-errors.js';
import { UploadRecord, type BegunUpload, type SentPart } from './upload-record.js';

/** Larger files are sent in parts of this size at least; a store takes at most 10 000 parts. */
const PART_BYTES = 16 << 20;
const MAXIMUM_PARTS = 9_000;
/** Parts that are in memory and on the way at once. */
const PARTS_AT_ONCE = 3;
/** A store that has two of them create an object at the same time may tell one to try again. */
const CONFLICT_ATTEMPTS = 10;
const CONFLICT_PAUSE_MS = 300;
const HASHED_BYTES = 4 << 20;

/** Metadata of every object that is sent: what it holds, and by which work it was made. */
const SHA256_KEY = 'sha256';
const OWNER_KEY = 'secateur-owner';

export interface SendOptions {
  /** Folder of this machine that holds the files. */
  readonly folder: string;
  /** The files in the order they are sent. The last one makes the output whole: it appears only where none is. */
  readonly names: readonly string[];
  /** What the files are made from. Objects of another owner are never replaced. */
  readonly owner: string;
  /** File that remembers what was sent. */
  readonly record: string;
  /** Told before each file; throws when it is not to be sent any more. */
  readonly beforeFile?: (() => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A folder of results under a prefix of a store: sent file by file, whole once its last file is there. */
export class StoreOutput {
  private constructor(
    private readonly store: Store,
    private readonly bucket: string,
    private readonly prefix: string,
    private readonly folder: StoreFolder,
  ) {}

  static async open(url: string): Promise<StoreOutput> {
    const { bucket, key } = parseStoreUrl(url);
    if (key === '') throw new SecateurError('PATH_NOT_ALLOWED', `${url}: an output needs a prefix of its own; write s3://BUCKET/PREFIX.`);
    return new StoreOutput(await openStore(), bucket, key, await StoreFolder.open(url));
  }

  has(name: string): Promise<boolean> {
    return this.folder.has(name);
  }

  /** Whether this owner put the object there. */
  async isOf(owner: string, name: string): Promise<boolean> {
    return (await this.folder.describe(name))?.metadata[OWNER_KEY] === owner;
  }

  /** ALREADY_EXISTS when there is an object under the prefix that another owner, or nobody we know, put there. */
  async requireOwn(owner: string): Promise<void> {
    for (const { name } of await this.folder.listAll()) {
      const found = await this.folder.describe(name);
      if (found === undefined || found.metadata[OWNER_KEY] === owner) continue;
      throw new SecateurError(
        'ALREADY_EXISTS',
        `${this.folder.path} holds ${name}, which is not of this job; choose another output, or remove what is there.`,
      );
    }
  }

  /** Sends the files. What the store has already, whole or in parts, with the same content is not sent again. */
  async send({ folder, names, owner, record: recordPath, beforeFile, signal }: SendOptions): Promise<void> {
    const record = await UploadRecord.open(recordPath);
    for (const [index, name] of names.entries()) {
      beforeFile?.();
      const file = await InputFile.open(join(folder, name));
      try {
        const sha256 = await digestOf(file, signal);
        const object = { name, file, sha256, metadata: { [SHA256_KEY]: sha256, [OWNER_KEY]: owner }, signal };
        if (await this.isThere(object)) continue;
        if (index === names.length - 1) await this.complete(object);
        else if (file.bytes <= PART_BYTES) await withStoreErrors('write', this.urlOf(name), () => this.put(object, {}));
        else await this.putInParts(object, record);
      } finally {
        await file.close();
      }
    }
  }

  /** Deletes everything under the prefix; first what makes it whole. */
  async remove(last: string): Promise<void> {
    await this.folder.remove(last);
    for (const { name } of await this.folder.listAll()) await this.folder.remove(name);
  }

  /** Deletes what an unfinished output left: objects of that owner, and parts. */
  async removeUnfinished(recordPath: string, owner: string): Promise<void> {
    const { sdk, client } = this.store;
    for (const [name, { id }] of (await UploadRecord.open(recordPath)).uploads) {
      // It may be complete, or gone.
      await client.send(new sdk.AbortMultipartUploadCommand({ ...this.objectOf(name), UploadId: id })).catch(() => undefined);
    }
    for (const { name } of await this.folder.listAll()) {
      if ((await this.folder.describe(name))?.metadata[OWNER_KEY] === owner) await this.folder.remove(name);
    }
  }

  /** Whether the store has the object with the same content, sent by the same work. */
  private async isThere({ name, file, metadata }: SentObject): Promise<boolean> {
    const found = await this.folder.describe(name);
    return found?.bytes === file.bytes && Object.entries(metadata).every(([key, value]) => found.metadata[key] === value);
  }

  /** Puts the object that makes the output whole, unless somebody else has done so: the store decides who is first. */
  private async complete(object: SentObject): Promise<void> {
    for (let attempt = 1; ; ++attempt) {
      try {
        await this.put(object, { IfNoneMatch: '*' });
        return;
      } catch (error) {
        const name = storeErrorName(error);
        // Stores that cannot decide take the last.
        if (name === 'NotImplemented') return withStoreErrors('write', this.urlOf(object.name), () => this.put(object, {}));
        if (name === 'PreconditionFailed') return this.requireComplete(object);
        if (name !== 'ConditionalRequestConflict' || attempt === CONFLICT_ATTEMPTS) throw this.explain(object.name, error);
        await sleep(CONFLICT_PAUSE_MS, undefined, { signal: object.signal }).catch(() => throwIfCancelled(object.signal));
      }
    }
  }

  /** That it is there may be our own doing: the answer to the first try may have been lost. */
  private async requireComplete(object: SentObject): Promise<void> {
    if (await this.isThere(object)) return;
    throw new SecateurError('ALREADY_EXISTS', `${this.folder.path} was completed by another job; choose another output.`);
  }

  private async put({ name, file, sha256, metadata, signal }: SentObject, condition: { readonly IfNoneMatch?: string }): Promise<void> {
    const { sdk, client } = this.store;
    const Body = Buffer.allocUnsafeSlow(file.bytes);
    await file.readInto(Body, 0, signal);
    const check = (await keepsChecksums(this.store)) ? sha256Check(sha256) : md5Check(Body);
    const command = new sdk.PutObjectCommand({ ...this.objectOf(name), Body, Metadata: metadata, ...check, ...condition });
    await client.send(command, stoppable(signal));
  }

  private async putInParts(object: SentObject, record: UploadRecord): Promise<void> {
    const { name, sha256 } = object;
    const earlier = record.uploads.get(name);
    const continued = earlier?.sha256 === sha256 ? earlier : undefined;
    try {
      await this.sendParts(object, record, continued ?? (await this.begin(object, record)));
    } catch (error) {
      // The store, or a rule of the bucket, has given up what an earlier attempt had begun.
      if (continued === undefined || storeErrorName(error) !== 'NoSuchUpload') throw this.explain(name, error);
      await withStoreErrors('write', this.urlOf(name), async () => this.sendParts(object, record, await this.begin(object, record)));
    }
  }

  private async begin({ name, file, sha256, metadata }: SentObject, record: UploadRecord): Promise<BegunUpload> {
    const { sdk, client } = this.store;
    const isPlain = !(await keepsChecksums(this.store));
    const checksums = isPlain ? {} : { ChecksumAlgorithm: 'CRC32' as const };
    const command = new sdk.CreateMultipartUploadCommand({ ...this.objectOf(name), Metadata: metadata, ...checksums });
    const { UploadId: id } = await client.send(command);
    if (id === undefined) throw new SecateurError('UNAVAILABLE', `Cannot write ${this.urlOf(name)}: the store began no upload.`);
    const leastBytes = Math.ceil(file.bytes / MAXIMUM_PARTS);
    return record.begin(name, { id, sha256, partBytes: Math.max(PART_BYTES, leastBytes), isPlain });
  }

  private async sendParts(object: SentObject, record: UploadRecord, upload: BegunUpload): Promise<void> {
    const { name, file, signal } = object;
    const { sdk, client } = this.store;
    const { id: UploadId, partBytes, parts, isPlain } = upload;
    const count = Math.ceil(file.bytes / partBytes);
    const failure = new AbortController();
    const stop = signal === undefined ? failure.signal : AbortSignal.any([signal, failure.signal]);
    const missing = Array.from({ length: count }, (_, index) => index + 1).filter((number) => !parts.has(number));
    const remaining = missing.values();
    const sendRemaining = async (): Promise<void> => {
      try {
        for (const number of remaining) {
          throwIfCancelled(stop);
          const offset = (number - 1) * partBytes;
          const Body = Buffer.allocUnsafeSlow(Math.min(partBytes, file.bytes - offset));
          await file.readInto(Body, offset, stop);
          const check = isPlain === true ? md5Check(Body) : crc32Check(Body);
          const part = { UploadId, PartNumber: number, Body, ...check };
          const { ETag: etag } = await client.send(new sdk.UploadPartCommand({ ...this.objectOf(name), ...part }), stoppable(stop));
          if (etag === undefined)
            throw new SecateurError('UNAVAILABLE', `Cannot write ${this.urlOf(name)}: the store tells no ETag of a part.`);
          await record.sent(name, { number, etag, ...('ChecksumCRC32' in check ? { checksum: check.ChecksumCRC32 } : {}) });
        }
      } catch (error) {
        // Only the first counts: it is why the others fail.
        failure.abort(error);
      }
    };
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, sendRemaining));
    if (failure.signal.aborted) throw failure.signal.reason;
    const Parts = [...parts.values()].sort((left, right) => left.number - right.number).map(toCompletedPart);
    await this.joinParts(object, UploadId, Parts);
  }

  private async joinParts(object: SentObject, UploadId: string, Parts: CompletedPart[]): Promise<void> {
    const { sdk, client } = this.store;
    const command = new sdk.CompleteMultipartUploadCommand({ ...this.objectOf(object.name), UploadId, MultipartUpload: { Parts } });
    try {
      await client.send(command, stoppable(object.signal));
    } catch (error) {
      // The answer to the first try may have been lost, and not every store remembers an upload that has ended.
      if (storeErrorName(error) !== 'NoSuchUpload' || !(await this.isThere(object))) throw error;
    }
  }

  private explain(name: string, error: unknown): SecateurError {
    return toStoreError('write', this.urlOf(name), error);
  }

  private objectOf(name: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.bucket, Key: `${this.prefix}/${name}` };
  }

  private urlOf(name: string): string {
    return `${this.folder.path}/${name}`;
  }
}

interface SentObject {
  readonly name: string;
  readonly file: InputFile;
  readonly sha256: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
}

function stoppable(signal: AbortSignal | undefined): { readonly abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

async function digestOf(file: InputFile, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256');
  const part = Buffer.allocUnsafeSlow(Math.min(HASHED_BYTES, file.bytes));
  for (let offset = 0; offset < file.bytes; offset += HASHED_BYTES) {
    const read = part.subarray(0, Math.min(HASHED_BYTES, file.bytes - offset));
    await file.readInto(read, offset, signal);
    hash.update(read);
  }
  return hash.digest('hex');
}

function toCompletedPart({ number, etag, checksum }: SentPart): CompletedPart {
  return { PartNumber: number, ETag: etag, ...(checksum === undefined ? {} : { ChecksumCRC32: checksum }) };
}
