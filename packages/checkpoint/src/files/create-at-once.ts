import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { errorCode, toFileError, withFileErrors } from './file-errors.js';
import { alreadyExists, isTaken, publishDirectory, syncDirectory } from './publish-directory.js';

/** Makes a file that appears under its name when `write` has made it durable under another one. A failure leaves nothing behind. */
export async function createFileAtOnce(path: string, write: (partial: string) => Promise<void>): Promise<void> {
  if (await isTaken(path)) throw alreadyExists(path);
  const partial = `${path}.${randomUUID()}.partial`;
  try {
    await write(partial);
    // Somebody else may have made it meanwhile.
    if (await isTaken(path)) throw alreadyExists(path);
    await withFileErrors('publish', path, () => rename(partial, path));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** Makes a folder that appears under its name when `fill` has filled `<path>.partial` durably. A failure leaves nothing behind. */
export async function createDirectoryAtOnce(path: string, fill: (partial: string) => Promise<void>): Promise<void> {
  if (await isTaken(path)) throw alreadyExists(path);
  const partial = `${path}.partial`;
  try {
    await mkdir(partial);
  } catch (error) {
    throw errorCode(error) === 'EEXIST' ? partialExists(partial) : toFileError('create', partial, error);
  }
  try {
    await fill(partial);
    await publishDirectory(partial, path);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

function partialExists(partial: string): SecateurError {
  return new SecateurError(
    'ALREADY_EXISTS',
    `${partial} exists: it is being written, or was left unfinished. Choose another output folder, or remove it if nothing writes to it.`,
  );
}
