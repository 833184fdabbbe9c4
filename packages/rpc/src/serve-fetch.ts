import { trace } from '@opentelemetry/api';
import { CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import type { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { Attribute } from '@secateur/telemetry';
import type { ServiceImplementation } from './definition.js';

/** Bytes that can be read in any order. */
export interface ByteSource {
  readonly bytes: number;
  /** Exactly `length` bytes from `offset`. They must not change until they are sent. */
  read(offset: number, length: number, signal: AbortSignal): Promise<Uint8Array>;
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
      const hasher = await loadHasher();
      const read = (offset: number): Promise<Uint8Array> => {
        const chunk = source.read(offset, Math.min(CHUNK_BYTES, source.bytes - offset), signal);
        // It fails where it is awaited, which a reader that goes away may keep from happening.
        chunk.catch(() => undefined);
        return chunk;
      };
      trace.getActiveSpan()?.setAttribute(Attribute.BYTES, source.bytes - start);
      let next = start < source.bytes ? read(start) : undefined;
      for (let offset = start; next !== undefined; offset += CHUNK_BYTES) {
        const data = await next;
        next = offset + CHUNK_BYTES < source.bytes ? read(offset + CHUNK_BYTES) : undefined;
        yield { offset, data, checksum: hasher.checksum(data) };
      }
    },
  };
}
