import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { expandDataPath, isStoreUrl, resolveLocation, type DataFiles } from '@secateur/checkpoint';

/**
 * Folders that a local job may use: the model's, those of its data files and outputs, and those that links in them lead to, as in the cache of
 * the Hugging Face hub, where every file of a model is a link. The user named them, so following them is what the user wants. Of stores, just what was named.
 */
export async function localRoots(model: string, data: readonly string[], outputs: readonly string[] = []): Promise<string[]> {
  const named = [model, ...data, ...outputs].map(resolveLocation);
  const folder = resolveLocation(model);
  const names = isStoreUrl(folder) ? [] : await readdir(folder).catch((): string[] => []);
  const local = (locations: readonly string[]): string[] => locations.map(resolveLocation).filter((location) => !isStoreUrl(location));
  const found = await Promise.all(local(data).map(dataFiles));
  const paths = [...names.map((name) => join(folder, name)), ...found.flatMap(({ files }) => files), ...local(outputs)];
  const targets = await Promise.all(paths.map((path) => realpath(path).catch(() => path)));
  return [
    ...new Set([
      ...local([model]),
      ...found.map((path) => path.folder),
      ...paths.map(dirname),
      ...targets.map(dirname),
      ...named.filter(isStoreUrl),
    ]),
  ];
}

/** What is not there may be there for the service. */
function dataFiles(path: string): Promise<DataFiles> {
  return expandDataPath(path).catch((): DataFiles => ({ folder: dirname(path), files: [] }));
}
