import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode, toFileError, withFileErrors } from './file-errors.js';

/** Makes a folder, and those above it, where they are missing. Node's own `recursive` tells a full or read-only disk as ENOENT. */
export async function makeDirectory(path: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return;
    if (errorCode(error) !== 'ENOENT' || dirname(path) === path) throw toFileError('create', path, error);
    await makeDirectory(dirname(path), mode);
    await withFileErrors('create', path, () => mkdir(path, { mode }));
  }
}
