import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Does `work` unless the stamp file says that it was last finished with the same fingerprint. The stamp is taken away first, so work that was
 * interrupted is done again.
 * @param {string} file
 * @param {string} fingerprint
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>} whether the work was done
 */
export async function unlessStamped(file, fingerprint, work) {
  if (readStamp(file) === fingerprint) return false;
  rmSync(file, { force: true });
  await work();
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, `${fingerprint}\n`);
  renameSync(`${file}.new`, file);
  return true;
}

/** @param {string} file */
function readStamp(file) {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}
