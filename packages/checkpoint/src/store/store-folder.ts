import { SecateurError } from '@secateur/core';
import type { FolderEntry, InputFolder } from '../files/folder.js';
import { formatStoreUrl, parseStoreUrl, type StoreLocation } from '../files/locations.js';
import { openStore, type Store } from './client.js';
import { findObject } from './head-object.js';
import { withStoreErrors } from './store-errors.js';

/** A folder of a model has no more files; a prefix that has is something else. */
const MAXIMUM_ENTRIES = 20_000;

/** The objects under a prefix of a store. */
export class StoreFolder implements InputFolder {
  readonly path: string;

  private constructor(
    private readonly store: Store,
    private readonly location: StoreLocation,
  ) {
    this.path = formatStoreUrl(location);
  }

  static async open(url: string): Promise<StoreFolder> {
    return new StoreFolder(await openStore(), parseStoreUrl(url));
  }

  async has(name: string): Promise<boolean> {
    return (await this.describe(name)) !== undefined;
  }

  /** Size and metadata of an object; undefined where there is none. */
  async describe(name: string): Promise<{ readonly bytes: number; readonly metadata: Readonly<Record<string, string>> } | undefined> {
    const location = { bucket: this.location.bucket, key: this.keyOf(name) };
    const found = await withStoreErrors('read', this.urlOf(name), () => findObject(this.store, location));
    return found && { bytes: found.ContentLength ?? 0, metadata: found.Metadata ?? {} };
  }

  async list(): Promise<FolderEntry[]> {
    return (await this.listAll()).filter(({ name }) => !name.includes('/'));
  }

  /** Those of folders below too, by the rest of their key. */
  async listAll(): Promise<FolderEntry[]> {
    const { sdk, client } = this.store;
    const prefix = this.keyOf('');
    const entries: FolderEntry[] = [];
    let token: string | undefined;
    do {
      const page = await withStoreErrors('list', this.path, () =>
        client.send(
          new sdk.ListObjectsV2Command({
            Bucket: this.location.bucket,
            Prefix: prefix,
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
        ),
      );
      for (const { Key, Size = 0 } of page.Contents ?? []) {
        if (Key !== undefined && Key !== prefix) entries.push({ name: Key.slice(prefix.length), bytes: Size });
      }
      if (entries.length > MAXIMUM_ENTRIES) {
        throw new SecateurError(
          'FAILED_PRECONDITION',
          `${this.path} holds more than ${MAXIMUM_ENTRIES} objects; name the prefix of a single model.`,
        );
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
    return entries;
  }

  async remove(name: string): Promise<void> {
    const { sdk, client } = this.store;
    const command = new sdk.DeleteObjectCommand({ Bucket: this.location.bucket, Key: this.keyOf(name) });
    await withStoreErrors('delete', this.urlOf(name), () => client.send(command));
  }

  private keyOf(name: string): string {
    return this.location.key === '' ? name : `${this.location.key}/${name}`;
  }

  private urlOf(name: string): string {
    return `${this.path}/${name}`;
  }
}
