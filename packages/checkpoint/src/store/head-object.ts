import type { HeadObjectCommandOutput } from '@aws-sdk/client-s3';
import type { StoreLocation } from '../files/locations.js';
import type { Store } from './client.js';
import { statusOf } from './store-errors.js';

/** Size, ETag and metadata of an object; undefined where there is none. */
export async function findObject(store: Store, location: StoreLocation): Promise<HeadObjectCommandOutput | undefined> {
  try {
    return await headObject(store, location);
  } catch (error) {
    if (statusOf(error) === 404) return undefined;
    throw await askWhy(store, location, error);
  }
}

/** The same of an object that has to be there. */
export async function requireObject(store: Store, location: StoreLocation): Promise<HeadObjectCommandOutput> {
  try {
    return await headObject(store, location);
  } catch (error) {
    throw await askWhy(store, location, error);
  }
}

function headObject({ sdk, client }: Store, { bucket: Bucket, key: Key }: StoreLocation): Promise<HeadObjectCommandOutput> {
  return client.send(new sdk.HeadObjectCommand({ Bucket, Key }));
}

/**
 * What an answer to HEAD, which has no body, does not tell of a refusal: whether the object or the bucket is missing, whether the key or the secret is
 * wrong. The answer to GET does.
 */
async function askWhy({ sdk, client }: Store, { bucket: Bucket, key: Key }: StoreLocation, error: unknown): Promise<unknown> {
  const status = statusOf(error) ?? 0;
  if (status < 300 || status >= 500) return error;
  try {
    const { Body } = await client.send(new sdk.GetObjectCommand({ Bucket, Key, Range: 'bytes=0-0' }));
    // It came in between.
    await Body?.transformToByteArray();
    return error;
  } catch (reason) {
    return statusOf(reason) === status ? reason : error;
  }
}
