import { availableParallelism } from 'node:os';
import { CHECKSUM_BYTES, CHUNK_BYTES, loadHasher, type Hasher } from '@secateur/core';
import type { Checkpoint } from './checkpoint.js';
import { requireFinite } from './require-finite.js';
import { scanOnThreads, type TensorToScan } from './scan-threads.js';

const MOST_THREADS = 8;
/** Half of it is scanned in about the time in which a thread starts. */
const BYTES_PER_THREAD = 256 << 20;

export interface ScanOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told after every part: bytes so far and in all. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
  /** Threads that read the files of a checkpoint; with 1 the calling one does. Defaults to what the bytes are worth and the machine has, at most 8. */
  readonly threads?: number | undefined;
}

/** What is known of a tensor's bytes once they were read. */
export interface ScannedTensor {
  readonly digest: string;
  /** Of each of its chunks, in order, 8 bytes each; the digest is made of them. */
  readonly checksums: Uint8Array;
}

/**
 * Digest and checksums of each named tensor, made in one pass that also refuses NaN and infinities. The error names file, tensor and element, the first
 * in the order of the names.
 */
export async function scanTensors(
  checkpoint: Checkpoint,
  names: Iterable<string>,
  { signal, onProgress, threads }: ScanOptions = {},
): Promise<Map<string, ScannedTensor>> {
  const hasher = await loadHasher();
  const tensors = [...new Set(names)].map((name) => withMemory(checkpoint, name));
  const totalBytes = tensors.reduce((sum, { entry }) => sum + entry.bytes, 0);
  let doneBytes = 0;
  const onScanned = (bytes: number): void => {
    doneBytes += bytes;
    onProgress?.(doneBytes, totalBytes);
  };
  const count = threads ?? threadsFor(totalBytes);
  if (count < 2 || !(await scanOnThreads(checkpoint, tensors, { threads: count, signal, onScanned }))) {
    for (const tensor of tensors) await scanHere(checkpoint, tensor, { hasher, signal, onScanned });
  }
  return new Map(tensors.map(({ entry, checksums }) => [entry.name, { digest: digestOf(checksums, hasher), checksums }]));
}

function threadsFor(totalBytes: number): number {
  return Math.min(MOST_THREADS, availableParallelism(), Math.floor(totalBytes / BYTES_PER_THREAD));
}

function withMemory(checkpoint: Checkpoint, name: string): TensorToScan {
  const entry = checkpoint.tensor(name);
  return { entry, checksums: new Uint8Array(CHECKSUM_BYTES * Math.ceil(entry.bytes / CHUNK_BYTES)) };
}

function digestOf(checksums: Uint8Array, hasher: Hasher): string {
  const digest = hasher.createDigest();
  digest.addChecksum(checksums);
  return digest.hex();
}

async function scanHere(
  checkpoint: Checkpoint,
  { entry, checksums }: TensorToScan,
  {
    hasher,
    signal,
    onScanned,
  }: { readonly hasher: Hasher; readonly signal: AbortSignal | undefined; readonly onScanned: (bytes: number) => void },
): Promise<void> {
  for await (const { chunk, offset } of readChunks(checkpoint, entry.name, entry.bytes, signal)) {
    requireFinite(chunk, offset, entry);
    checksums.set(hasher.checksum(chunk), CHECKSUM_BYTES * (offset / CHUNK_BYTES));
    onScanned(chunk.byteLength);
  }
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
