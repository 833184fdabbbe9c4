import { join, resolve } from 'node:path';
import { SecateurError } from '@secateur/core';

/** What begins the name of an object, or of all objects under a prefix, of an S3-compatible store. */
const STORE_SCHEME = 's3://';
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const MAXIMUM_KEY_BYTES = 1024;

/** A bucket, and the key or prefix in it without slashes around it; empty for the whole bucket. */
export interface StoreLocation {
  readonly bucket: string;
  readonly key: string;
}

/** Whether a path names objects of a store instead of a file or folder of this machine. */
export function isStoreUrl(path: string): boolean {
  return path.startsWith(STORE_SCHEME);
}

/** The parts of `s3://BUCKET/KEY`. Keys are taken as they are: nothing in them is decoded, and what a path would resolve is refused. */
export function parseStoreUrl(url: string): StoreLocation {
  const fail = (what: string): SecateurError => new SecateurError('PATH_NOT_ALLOWED', `${quoted(url)}: ${what}; write s3://BUCKET/PREFIX.`);
  if (!isStoreUrl(url)) throw fail(`it does not begin with ${STORE_SCHEME}`);
  const [bucket = '', ...parts] = url.slice(STORE_SCHEME.length).replace(/\/$/, '').split('/');
  if (!BUCKET.test(bucket)) throw fail('there is no bucket of such a name');
  if (parts.some((part) => part === '' || part === '.' || part === '..')) throw fail('the key has a part that is empty, . or ..');
  const key = parts.join('/');
  if (Buffer.byteLength(key) > MAXIMUM_KEY_BYTES) throw fail(`the key has more than ${MAXIMUM_KEY_BYTES} bytes`);
  if (/[\u0000-\u001f\u007f\\]/.test(key)) throw fail('the key holds a backslash or a control character');
  return { bucket, key };
}

export function formatStoreUrl({ bucket, key }: StoreLocation): string {
  return key === '' ? `${STORE_SCHEME}${bucket}` : `${STORE_SCHEME}${bucket}/${key}`;
}

/** An absolute path, or the URL of a store in its one form. */
export function resolveLocation(path: string): string {
  return isStoreUrl(path) ? formatStoreUrl(parseStoreUrl(path)) : resolve(path);
}

/** The name of a file in a folder, or of an object under a prefix. */
export function joinLocation(folder: string, name: string): string {
  return isStoreUrl(folder) ? `${folder}/${name}` : join(folder, name);
}

/** Control characters could change what a terminal shows of an error. */
function quoted(url: string): string {
  return JSON.stringify(url).slice(1, -1);
}
