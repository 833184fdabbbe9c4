import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { Store } from './client.js';

/**
 * Whether requests bear one of the newer checksums, which the store keeps. Older stores refuse them, so they are left out where the AWS tools leave
 * them out: AWS_REQUEST_CHECKSUM_CALCULATION, or the profile, asks for them only where they are required.
 */
export async function keepsChecksums({ client }: Store): Promise<boolean> {
  return (await client.config.requestChecksumCalculation()) !== 'WHEN_REQUIRED';
}

/** By which every store checks the body of a request, beside its signature. */
export function md5Check(bytes: Uint8Array): { readonly ContentMD5: string } {
  return { ContentMD5: createHash('md5').update(bytes).digest('base64') };
}

export function crc32Check(bytes: Uint8Array): { readonly ChecksumCRC32: string } {
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(bytes));
  return { ChecksumCRC32: checksum.toString('base64') };
}

/** Of a digest in hexadecimal digits. */
export function sha256Check(sha256: string): { readonly ChecksumSHA256: string } {
  return { ChecksumSHA256: Buffer.from(sha256, 'hex').toString('base64') };
}
