import xxhash from 'xxhash-wasm';

/** Bytes of one chunk on the wire and in digests. */
export const CHUNK_BYTES = 1 << 20;

export const CHECKSUM_BYTES = 8;

/** Digest of a resource from the checksums of its chunks, in order. */
export interface ChunkDigest {
  addChecksum(checksum: Uint8Array): void;
  /** 16 hex digits. */
  hex(): string;
}

export interface Hasher {
  /** XXH64 of a chunk, big-endian, 8 bytes. */
  checksum(chunk: Uint8Array): Uint8Array;
  createDigest(): ChunkDigest;
  /** The digest of bytes that are all here. */
  digest(bytes: Uint8Array): string;
}

let loading: Promise<Hasher> | undefined;

/** The hash functions, loaded once. The digest is XXH64 over the concatenated XXH64 values of the 1 MiB chunks (docs/decisions). */
export function loadHasher(): Promise<Hasher> {
  loading ??= createHasher();
  return loading;
}

async function createHasher(): Promise<Hasher> {
  const hashes = await xxhash();
  const checksum = (chunk: Uint8Array): Uint8Array => toBytes(hashes.h64Raw(chunk));
  const createDigest = (): ChunkDigest => {
    const hash = hashes.create64();
    return {
      addChecksum: (value) => void hash.update(value),
      hex: () => hash.digest().toString(16).padStart(16, '0'),
    };
  };
  const digest = (bytes: Uint8Array): string => {
    const whole = createDigest();
    for (let offset = 0; offset < bytes.byteLength; offset += CHUNK_BYTES)
      whole.addChecksum(checksum(bytes.subarray(offset, offset + CHUNK_BYTES)));
    return whole.hex();
  };
  return { checksum, createDigest, digest };
}

function toBytes(value: bigint): Uint8Array {
  const bytes = new Uint8Array(CHECKSUM_BYTES);
  new DataView(bytes.buffer).setBigUint64(0, value);
  return bytes;
}
