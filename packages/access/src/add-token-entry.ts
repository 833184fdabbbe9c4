import { access, rename, writeFile } from 'node:fs/promises';
import { SecateurError } from '@secateur/core';
import type { TokenEntry } from './token-file.js';

/** Adds an entry to a file, which is made where there is none, so that whoever reads it meanwhile finds it whole. */
export async function addTokenEntry(path: string, entry: TokenEntry): Promise<void> {
  const isThere = await access(path).then(
    () => true,
    () => false,
  );
  // Checking what is there takes a library that few commands need.
  const { readTokenEntries } = await import('./token-file.js');
  const entries = [...(isThere ? await readTokenEntries(path) : []), entry];
  const unfinished = `${path}.partial`;
  try {
    await writeFile(unfinished, `${JSON.stringify(entries, undefined, 2)}\n`, { mode: 0o600 });
    await rename(unfinished, path);
  } catch (cause) {
    const remedy = 'its folder must exist and be writable; no token was made';
    throw new SecateurError('FAILED_PRECONDITION', `--tokens ${path} cannot be written; ${remedy}.`, { cause });
  }
}
