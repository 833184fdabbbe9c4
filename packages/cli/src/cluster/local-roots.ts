import { readdir, realpath } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

/**
 * Folders that a local job may use: the model's, those of its data files, and those that links in them lead to, as in the cache of the
 * Hugging Face hub, where every file of a model is a link. The user named them, so following them is what the user wants.
 */
export async function localRoots(model: string, ...files: readonly string[]): Promise<string[]> {
  const folder = resolve(model);
  const names = await readdir(folder).catch((): string[] => []);
  const paths = [...names.map((name) => join(folder, name)), ...files.map((file) => resolve(file))];
  const targets = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
  return [...new Set([folder, ...paths.map(dirname), ...targets.map(dirname)])];
}
