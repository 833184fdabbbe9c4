import { lstat, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { errorCode, toFileError, withFileErrors } from './file-errors.js';

/** Gives a finished folder its name, all at once and durably; both must be on one file system. Refused when the name is taken. */
export async function publishDirectory(partial: string, final: string): Promise<void> {
  await syncDirectory(partial);
  const taken = await lstat(final).then(
    () => true,
    (error: unknown) => {
      if (errorCode(error) === 'ENOENT') return false;
      throw toFileError('publish', final, error);
    },
  );
  if (taken) throw alreadyExists(final);
  try {
    await rename(partial, final);
  } catch (error) {
    if (['EEXIST', 'ENOTEMPTY', 'ENOTDIR'].includes(errorCode(error) ?? '')) throw alreadyExists(final);
    throw toFileError('publish', final, error);
  }
  await syncDirectory(dirname(final));
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

function alreadyExists(path: string): SecateurError {
  return new SecateurError('ALREADY_EXISTS', `${path} exists; choose another output folder or remove it.`);
}
