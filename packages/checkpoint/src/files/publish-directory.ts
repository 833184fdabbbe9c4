import { lstat, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { errorCode, toFileError, withFileErrors } from './file-errors.js';

/** Gives a finished folder its name, all at once and durably; both must be on one file system. Refused when the name is taken. */
export async function publishDirectory(partial: string, final: string): Promise<void> {
  await syncDirectory(partial);
  if (await isTaken(final)) throw alreadyExists(final);
  try {
    await rename(partial, final);
  } catch (error) {
    if (['EEXIST', 'ENOTEMPTY', 'ENOTDIR'].includes(errorCode(error) ?? '')) throw alreadyExists(final);
    throw toFileError('publish', final, error);
  }
  await syncDirectory(dirname(final));
}

/** Whether anything has that name, even a broken link. */
export async function isTaken(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw toFileError('publish', path, error);
  }
}

/** Makes the entries of a folder durable. */
export async function syncDirectory(path: string): Promise<void> {
  await withFileErrors('sync', path, async () => {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  });
}

/** The error of an output whose name is taken. */
export function alreadyExists(path: string): SecateurError {
  return new SecateurError('ALREADY_EXISTS', `${path} exists; choose another name for the output or remove it.`);
}
