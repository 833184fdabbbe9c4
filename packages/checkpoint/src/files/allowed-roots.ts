import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { SecateurError } from '@secateur/core';
import { errorCode, toFileError } from './file-errors.js';

/**
 * The absolute path without symbolic links, provided that it lies inside one of the roots; PATH_NOT_ALLOWED otherwise.
 * The last parts of the path need not exist.
 */
export async function resolveInsideRoots(path: string, roots: readonly string[]): Promise<string> {
  if (path === '') throw new SecateurError('PATH_NOT_ALLOWED', 'The path is empty; name a file or folder inside an allowed root.');
  if (path.includes('\0')) throw new SecateurError('PATH_NOT_ALLOWED', 'The path holds a NUL character.');
  const real = await resolveLinks(resolve(path));
  for (const root of roots) {
    if (isInside(real, await resolveLinks(resolve(root)))) return real;
  }
  throw new SecateurError('PATH_NOT_ALLOWED', `${path} lies outside the allowed roots (${roots.join(', ')}).`);
}

/** True when both are the same or `path` lies below `folder`; both absolute and without links. */
function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== '..' && !way.startsWith(`..${sep}`);
}

async function resolveLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw toFileError('resolve', path, error);
  }
  const entry = await lstat(path).catch(() => undefined);
  if (entry !== undefined) throw new SecateurError('PATH_NOT_ALLOWED', `${path} is a symbolic link to something that does not exist.`);
  return join(await resolveLinks(dirname(path)), basename(path));
}
