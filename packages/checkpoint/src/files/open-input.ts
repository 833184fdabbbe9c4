import type { SecateurError } from '@secateur/core';
import { StoreObject } from '../store/store-object.js';
import { resolveInsideRoots } from './allowed-roots.js';
import { InputFile, type InputOptions } from './input-file.js';
import { isStoreUrl } from './locations.js';
import type { ReadableFile } from './readable-file.js';

/** Opens a regular file, or an object of a store by its URL; with `allowedRoots` only inside them. */
export async function openInput(path: string, options: InputOptions = {}): Promise<ReadableFile> {
  if (!isStoreUrl(path)) return InputFile.open(path, options);
  if (options.allowedRoots !== undefined) await resolveInsideRoots(path, options.allowedRoots);
  return StoreObject.open(path);
}

/** The whole content of a small file. Larger files are refused with `refuse(bytes)`. */
export async function readSmallFile(
  path: string,
  maximumBytes: number,
  options: InputOptions,
  refuse: (bytes: number) => SecateurError,
): Promise<Buffer> {
  const file = await openInput(path, options);
  try {
    if (file.bytes > maximumBytes) throw refuse(file.bytes);
    const content = Buffer.allocUnsafeSlow(file.bytes);
    await file.readInto(content, 0);
    return content;
  } finally {
    await file.close();
  }
}
