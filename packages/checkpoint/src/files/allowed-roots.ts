import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { SecateurError } from '@secateur/core';
import { errorCode, toFileError } from './file-errors.js';
import { isStoreUrl, parseStoreUrl, resolveLocation } from './locations.js';

/**
 * The absolute path without symbolic links, or the URL of a store, provided that it lies inside one of the roots; PATH_NOT_ALLOWED otherwise.
 * The last parts of the path need not exist.
 */
export async function resolveInsideRoots(path: string, roots: readonly string[]): Promise<string> {
  if (path === '') throw new SecateurError('PATH_NOT_ALLOWED', 'The path is empty; name a file or folder inside an allowed root.');
  if (path.includes('\0')) throw new SecateurError('PATH_NOT_ALLOWED', 'The path holds a NUL character.');
  if (isStoreUrl(path)) {
    if (!roots.some((root) => isStoreUrl(root) && isUnder(path, root))) throw outside(path, roots);
    return resolveLocation(path);
  }
  const real = await resolveLinks(resolve(path));
  for (const root of roots) {
    if (!isStoreUrl(root) && isInside(real, await resolveLinks(resolve(root)))) return real;
  }
  throw outside(path, roots);
}

function outside(path: string, roots: readonly string[]): SecateurError {
  return new SecateurError('PATH_NOT_ALLOWED', `${path} lies outside the allowed roots (${roots.join(', ')}).`);
}

/** True when both are the same or `path` lies below `folder`; both absolute and without links. */
function isInside(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== '..' && !way.startsWith(`..${sep}`);
}

/** The same for URLs of stores; whole parts of a key count. */
function isUnder(url: string, root: string): boolean {
  const [inner, outer] = [parseStoreUrl(url), parseStoreUrl(root)];
  return inner.bucket === outer.bucket && (outer.key === '' || inner.key === outer.key || inner.key.startsWith(`${outer.key}/`));
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
