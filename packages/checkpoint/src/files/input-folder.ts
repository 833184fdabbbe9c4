import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StoreFolder } from '../store/store-folder.js';
import { resolveInsideRoots } from './allowed-roots.js';
import { errorCode, toFileError, withFileErrors } from './file-errors.js';
import type { FolderEntry, InputFolder } from './folder.js';
import type { InputOptions } from './input-file.js';
import { isStoreUrl } from './locations.js';

/** Opens a folder, or what lies under a prefix of a store, which must lie inside the allowed roots. Where files really are is checked when they are opened. */
export async function openFolder(path: string, options: InputOptions = {}): Promise<InputFolder> {
  if (!isStoreUrl(path)) return LocalFolder.open(path);
  const url = options.allowedRoots === undefined ? path : await resolveInsideRoots(path, options.allowedRoots);
  return StoreFolder.open(url);
}

class LocalFolder implements InputFolder {
  private constructor(readonly path: string) {}

  static async open(path: string): Promise<LocalFolder> {
    return new LocalFolder(await withFileErrors('open', path, () => realpath(path)));
  }

  async has(name: string): Promise<boolean> {
    const path = join(this.path, name);
    try {
      await lstat(path);
      return true;
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return false;
      throw toFileError('read', path, error);
    }
  }

  async list(): Promise<FolderEntry[]> {
    const entries: FolderEntry[] = [];
    for (const name of (await withFileErrors('list', this.path, () => readdir(this.path))).sort()) {
      const path = join(this.path, name);
      const status = await stat(path).catch(() => undefined);
      if (status?.isFile() === true) entries.push({ name, bytes: status.size });
    }
    return entries;
  }
}
