/** What scanning threads run. */
import { CHECKSUM_BYTES, CHUNK_BYTES, loadHasher, SecateurError, type ErrorReason } from '@secateur/core';
import { readDescriptorInto } from '../files/input-file.js';
import type { TensorEntry } from './checkpoint.js';
import { requireFinite } from './require-finite.js';

/** A part of a tensor in a file that is open in this process. */
export interface FilePart {
  readonly tensor: Pick<TensorEntry, 'file' | 'name' | 'dataType'>;
  readonly path: string;
  readonly descriptor: number;
  /** Where it begins in the file. */
  readonly position: number;
  /** Where it begins in the tensor, a multiple of the chunk size. */
  readonly offset: number;
  readonly bytes: number;
}

export type ScanReply =
  /** Of each chunk of each part, in order. */
  | { readonly kind: 'checksums'; readonly checksums: Uint8Array }
  /** Of the first part that is wrong. An error that crosses to another thread would lose its reason. */
  | { readonly kind: 'failure'; readonly reason: ErrorReason; readonly message: string };

const memory = Buffer.allocUnsafeSlow(CHUNK_BYTES);

export default async function scanParts(parts: readonly FilePart[]): Promise<ScanReply> {
  const hasher = await loadHasher();
  const checksums = new Uint8Array(CHECKSUM_BYTES * parts.reduce((sum, { bytes }) => sum + Math.ceil(bytes / CHUNK_BYTES), 0));
  let scanned = 0;
  try {
    for (const { tensor, path, descriptor, position, offset, bytes } of parts) {
      for (let start = 0; start < bytes; start += CHUNK_BYTES) {
        const chunk = memory.subarray(0, Math.min(CHUNK_BYTES, bytes - start));
        readDescriptorInto(path, descriptor, chunk, position + start);
        requireFinite(chunk, offset + start, tensor);
        checksums.set(hasher.checksum(chunk), CHECKSUM_BYTES * scanned++);
      }
    }
  } catch (error) {
    if (!(error instanceof SecateurError)) throw error;
    return { kind: 'failure', reason: error.reason, message: error.message };
  }
  return { kind: 'checksums', checksums };
}
