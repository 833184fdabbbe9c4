import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { workspaceRoot } from './workspace-root.mjs';

const ignoredFolders = new Set(['node_modules', 'dist', 'build', '.git']);

/**
 * All files below `path` in a fixed order; `path` itself when it is a file, nothing when it does not exist.
 * @param {string} path
 * @returns {string[]}
 */
export function listFiles(path) {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined) return [];
  if (!status.isDirectory()) return [path];
  return readdirSync(path)
    .filter((name) => !ignoredFolders.has(name))
    .sort()
    .flatMap((name) => listFiles(join(path, name)));
}

/**
 * A digest of the names and contents of files and folders, and of further values the work depends on.
 * @param {{ paths: readonly string[], values?: readonly string[], root?: string }} inputs paths relative to `root`
 */
export function fingerprint({ paths, values = [], root = workspaceRoot }) {
  const hash = createHash('sha256');
  const add = (/** @type {string | Buffer} */ part) => hash.update(`${String(part.length)}:`).update(part);
  for (const file of paths.flatMap((path) => listFiles(join(root, path)))) {
    add(relative(root, file).split(sep).join('/'));
    add(readFileSync(file));
  }
  add('values');
  for (const value of values) add(value);
  return hash.digest('hex');
}
