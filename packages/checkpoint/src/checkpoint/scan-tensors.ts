import { CHECKSUM_BYTES, CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import { quote } from '../safetensors/json-reader.js';
import type { Checkpoint } from './checkpoint.js';
import { elementBytes, findNonFinite } from './float-elements.js';

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told after every part: bytes so far and in all. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** What is known of a tensor's bytes once they were read. */
export interface ScannedTensor {
  readonly digest: string;
  /** Of each of its chunks, in order, 8 bytes each; the digest is made of them. */
  readonly checksums: Uint8Array;
}

/** Digest and checksums of each named tensor, made in one pass that also refuses NaN and infinities; the error names file, tensor and element. */
export async function scanTensors(
  checkpoint: Checkpoint,
  names: Iterable<string>,
  { signal, onProgress }: ScanOptions = {},
): Promise<Map<string, ScannedTensor>> {
  const hasher = await loadHasher();
  const entries = [...new Set(names)].map((name) => checkpoint.tensor(name));
  const totalBytes = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  const scanned = new Map<string, ScannedTensor>();
  let doneBytes = 0;
  for (const { name, file, bytes, dataType } of entries) {
    const digest = hasher.createDigest();
    const checksums = new Uint8Array(CHECKSUM_BYTES * Math.ceil(bytes / CHUNK_BYTES));
    for await (const { chunk, offset } of readChunks(checkpoint, name, bytes, signal)) {
      const index = findNonFinite(chunk, dataType);
      if (index !== -1) {
        const element = offset / elementBytes(dataType) + index;
        throw new SecateurError(
          'INVALID_CHECKPOINT',
          `${file}: tensor ${quote(name)} holds NaN or infinity at element ${element}; such a model cannot be pruned.`,
        );
      }
      const checksum = hasher.checksum(chunk);
      digest.addChecksum(checksum);
      checksums.set(checksum, CHECKSUM_BYTES * (offset / CHUNK_BYTES));
      doneBytes += chunk.byteLength;
      onProgress?.(doneBytes, totalBytes);
    }
    scanned.set(name, { digest: digest.hex(), checksums });
  }
  return scanned;
}

/** The chunks of a tensor; a chunk is overwritten two steps later. The next one is read while the reader looks at this one. */
async function* readChunks(
  checkpoint: Checkpoint,
  name: string,
  bytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ readonly chunk: Buffer; readonly offset: number }> {
  let [current, spare] = [Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, bytes)), Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, bytes))];
  const read = async (buffer: Buffer, offset: number): Promise<Buffer> => {
    const chunk = buffer.subarray(0, Math.min(CHUNK_BYTES, bytes - offset));
    await checkpoint.readTensorInto(name, chunk, { offset, signal });
    return chunk;
  };
  let reading = read(current, 0);
  try {
    for (let offset = 0; offset < bytes; offset += CHUNK_BYTES) {
      const chunk = await reading;
      if (offset + CHUNK_BYTES < bytes) reading = read(spare, offset + CHUNK_BYTES);
      yield { chunk, offset };
      [current, spare] = [spare, current];
    }
  } finally {
    // When the reader stops early, the read ahead of it must end before the file may be closed.
    await reading.catch(() => undefined);
  }
}
