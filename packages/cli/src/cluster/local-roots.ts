import { readdir, realpath } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { expandDataPath, type DataFiles } from '@secateur/checkpoint';

/**
 * Folders that a local job may use: the model's, those of its data files and outputs, and those that links in them lead to, as in the cache of
 * the Hugging Face hub, where every file of a model is a link. The user named them, so following them is what the user wants.
 */
export async function localRoots(model: string, data: readonly string[], outputs: readonly string[] = []): Promise<string[]> {
  const folder = resolve(model);
  const names = await readdir(folder).catch((): string[] => []);
  const found = await Promise.all(data.map((path) => dataFiles(resolve(path))));
  const paths = [
    ...names.map((name) => join(folder, name)),
    ...found.flatMap(({ files }) => files),
    ...outputs.map((path) => resolve(path)),
  ];
  const targets = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
  return [...new Set([folder, ...found.map((path) => path.folder), ...paths.map(dirname), ...targets.map(dirname)])];
}

/** What is not there may be there for the service. */
function dataFiles(path: string): Promise<DataFiles> {
  return expandDataPath(path).catch((): DataFiles => ({ folder: dirname(path), files: [] }));
}
