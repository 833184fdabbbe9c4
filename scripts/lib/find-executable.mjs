import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * @param {string} name
 * @param {readonly string[]} [folders] those of the PATH by default
 * @returns {string | undefined} its path
 */
export function findExecutable(name, folders = (process.env['PATH'] ?? '').split(delimiter)) {
  return folders.map((folder) => join(folder, name)).find(isExecutable);
}

/** @param {string} path */
function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
