import { access, readdir } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { SecateurError } from '@secateur/core';
import { withFileErrors } from '../files/file-errors.js';
import { isStoreUrl } from '../files/locations.js';
import { compileGlob } from './glob.js';

const MAXIMUM_FILES = 10_000;

/** What a path or glob of data stands for. */
export interface DataFiles {
  /** Folder that the files lie in, at any depth below a glob's. */
  readonly folder: string;
  readonly files: readonly string[];
}

/**
 * The files of an absolute path or glob. What exists is taken by its name, so only a path that does not exist is read as a glob, and only from
 * the first part that does not exist. Folders that are links are not entered: a glob stays where it begins. The URL of a store is one object.
 */
export async function expandDataPath(path: string): Promise<DataFiles> {
  if (isStoreUrl(path)) return { folder: path, files: [path] };
  if (await exists(path)) return { folder: dirname(path), files: [path] };
  const { folder, pattern } = await splitPattern(path);
  const matches = compileGlob(pattern);
  if (matches === undefined) throw new SecateurError('NOT_FOUND', `Cannot read ${path}: it does not exist (ENOENT).`);
  const files = await findFiles(folder, pattern.includes('/') || pattern.includes('**'), matches);
  if (files.length === 0) throw new SecateurError('NOT_FOUND', `No file matches ${path}.`);
  return { folder, files };
}

/** The files of all paths and globs, each once and sorted by name, so that nothing depends on the order of folders or arguments. */
export async function findDataFiles(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(expandDataPath));
  const files = [...new Set(found.flatMap((path) => path.files))].sort();
  if (files.length > MAXIMUM_FILES) {
    throw new SecateurError('INVALID_DATA', `${paths.join(', ')}: ${files.length} files are above the limit of ${MAXIMUM_FILES}.`);
  }
  return files;
}

/** Links count as files, since those of the Hugging Face cache are; what they lead to is checked when they are opened. */
async function findFiles(folder: string, recursive: boolean, matches: (path: string) => boolean): Promise<string[]> {
  const entries = await withFileErrors('read', folder, () => readdir(folder, { withFileTypes: true, recursive }));
  return entries
    .filter((entry) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => matches(relative(folder, file)));
}

/** The longest part of a path that exists, and what is left of it. */
async function splitPattern(path: string): Promise<{ readonly folder: string; readonly pattern: string }> {
  const folder = dirname(path);
  if (folder === path || (await exists(folder))) return { folder, pattern: basename(path) };
  const parent = await splitPattern(folder);
  return { folder: parent.folder, pattern: join(parent.pattern, basename(path)) };
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
