import { trace } from '@opentelemetry/api';
import { CHECKSUM_BYTES, CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import type { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { Attribute, count } from '@secateur/telemetry';
import type { ServiceImplementation } from './definition.js';
import { FetchChunk } from './fetch-chunk.js';

/** One chunk is being sent, one waits to be sent, one is read ahead. */
const CHUNKS_IN_USE = 3;

/** The most memory that one Fetch takes which is served, beside that of its source. */
export const SERVED_FETCH_BYTES = CHUNKS_IN_USE * CHUNK_BYTES;

/** Bytes that can be read in any order. */
export interface ByteSource {
  readonly bytes: number;
  /** Of its chunks, in order, 8 bytes each. Where they are not known, each chunk is summed up when it is sent. */
  readonly checksums?: Uint8Array | undefined;
  /** Exactly `length` bytes from `offset`: read into `room`, which has that length, or bytes that exist elsewhere. */
  read(offset: number, length: number, signal: AbortSignal, room: Uint8Array): Promise<Uint8Array>;
}

/** The TensorService over whatever `find` knows. Unknown resources are for `find` to reject with NOT_FOUND. */
export function serveFetch(find: (resource: string) => Promise<ByteSource>): ServiceImplementation<TensorServiceDefinition> {
  return {
    async *fetch({ resource, offset: start }, { signal }) {
      const source = await find(resource);
      if (start % CHUNK_BYTES !== 0 || start > source.bytes) {
        throw new SecateurError('INVALID_REQUEST', `Resource ${resource} of ${source.bytes} bytes cannot be read from ${start}.`, {
          violations: [{ field: 'offset', description: `A multiple of ${CHUNK_BYTES}, at most ${source.bytes}.` }],
        });
      }
      const checksumOf = await checksumsOf(source);
      trace.getActiveSpan()?.setAttribute(Attribute.BYTES, source.bytes - start);
      const chunks: FetchChunk[] = [];
      let next = start < source.bytes ? readChunk(source, start, chunks, signal) : undefined;
      for (let offset = start; next !== undefined; offset += CHUNK_BYTES) {
        const { chunk, data } = await next;
        next = offset + CHUNK_BYTES < source.bytes ? readChunk(source, offset + CHUNK_BYTES, chunks, signal) : undefined;
        yield chunk.encode(offset, data.byteLength, checksumOf(data, offset));
        count('SENT', data.byteLength);
      }
    },
  };
}

async function checksumsOf({ checksums }: ByteSource): Promise<(chunk: Uint8Array, offset: number) => Uint8Array> {
  if (checksums === undefined) {
    const hasher = await loadHasher();
    return (chunk) => hasher.checksum(chunk);
  }
  return (_chunk, offset) => {
    const start = CHECKSUM_BYTES * (offset / CHUNK_BYTES);
    return checksums.subarray(start, start + CHECKSUM_BYTES);
  };
}

/** Reads the chunk at `offset` into one of a few that take turns: the next but two is read when this one has been sent. */
function readChunk(
  source: ByteSource,
  offset: number,
  chunks: FetchChunk[],
  signal: AbortSignal,
): Promise<{ readonly chunk: FetchChunk; readonly data: Uint8Array }> {
  const turn = (offset / CHUNK_BYTES) % CHUNKS_IN_USE;
  const length = Math.min(CHUNK_BYTES, source.bytes - offset);
  const chunk = (chunks[turn] ??= new FetchChunk(length));
  const fill = async (): Promise<{ readonly chunk: FetchChunk; readonly data: Uint8Array }> => {
    const data = chunk.data(length);
    const read = await source.read(offset, length, signal, data);
    if (read !== data) data.set(read);
    return { chunk, data };
  };
  const filled = fill();
  // It fails where it is awaited, which a reader that goes away may keep from happening.
  filled.catch(() => undefined);
  return filled;
}
