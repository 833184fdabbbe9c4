import { constants } from 'node:buffer';
import { setTimeout as delay } from 'node:timers/promises';
import { CHUNK_BYTES, loadHasher, SecateurError, type Hasher } from '@secateur/core';
import { TensorServiceDefinition, type FetchResponse } from '@secateur/proto/tensor_service';
import type { Channel } from './channel.js';
import type { StreamOptions } from './definition.js';

const MAXIMUM_RESUMES = 3;
const RESUME_DELAY_MS = 100;

export interface ResourceDescriptor {
  readonly resource: string;
  /** Its exact size. */
  readonly bytes: number;
  /** Hex digest of the whole (`createDigest` of @secateur/core); not checked when absent. */
  readonly digest?: string;
}

/**
 * Copies a chunk to a target of its size and returns the XXH64 of what was copied, 8 bytes, big-endian. It may free the memory of the chunk if that is
 * not Node's pool of small buffers: nothing but this message is there, and it is not looked at again.
 */
type MoveWithChecksum = (target: Uint8Array, chunk: Uint8Array) => Uint8Array;

export interface FetchOptions extends StreamOptions {
  /** For callers that have a faster way than this package's, which copies first and then hashes in WebAssembly. */
  readonly moveWithChecksum?: MoveWithChecksum;
  /** How long a broken connection may take to come back, each time; idleTimeoutMs when absent. */
  readonly reconnectTimeoutMs?: number;
  /** Told how many bytes of the beginning are there, after each chunk. */
  readonly onReceived?: (bytes: number) => void;
}

/** Pulls a resource into memory of its own; see `fetchResourceInto`. */
export async function fetchResource(channel: Channel, descriptor: ResourceDescriptor, options: FetchOptions): Promise<Buffer> {
  const content = allocate(descriptor);
  await fetchResourceInto(channel, descriptor, content, options);
  return content;
}

/**
 * Pulls a resource into `target`, which has exactly its size, and verifies order, sizes, the checksum of each chunk and the digest of the whole.
 * A transfer that breaks or brings a damaged chunk goes on after the last good chunk, three times at most. A source that falls silent
 * (idleTimeoutMs) is given up at once: a broken connection shows as UNAVAILABLE, so whoever is silent is stuck.
 */
export async function fetchResourceInto(
  channel: Channel,
  descriptor: ResourceDescriptor,
  target: Uint8Array,
  { moveWithChecksum, reconnectTimeoutMs, onReceived, ...options }: FetchOptions,
): Promise<void> {
  const transfer = new Transfer(descriptor, target, await loadHasher(), moveWithChecksum);
  const client = channel.client(TensorServiceDefinition);
  const endMs = performance.now() + options.timeoutMs;
  for (let resumes = 0; ; resumes++) {
    const timeoutMs = Math.max(0, endMs - performance.now());
    try {
      const reconnectMs = reconnectTimeoutMs ?? options.idleTimeoutMs ?? timeoutMs;
      if (resumes > 0) await channel.waitForReady(Math.min(timeoutMs, reconnectMs), options.signal);
      const request = { resource: descriptor.resource, offset: transfer.receivedBytes };
      for await (const chunk of client.fetch(request, { ...options, timeoutMs })) {
        transfer.accept(chunk);
        onReceived?.(transfer.receivedBytes);
      }
      transfer.requireAll();
      break;
    } catch (error) {
      if (resumes === MAXIMUM_RESUMES || !canResume(error)) throw error;
      await delay(RESUME_DELAY_MS * 2 ** resumes);
    }
  }
  transfer.requireDigest();
}

function canResume(error: unknown): boolean {
  return error instanceof SecateurError && (error.reason === 'UNAVAILABLE' || error.reason === 'CORRUPT_DATA');
}

/** The verified beginning of a resource. */
class Transfer {
  receivedBytes = 0;
  private readonly digest: ReturnType<Hasher['createDigest']>;

  constructor(
    private readonly descriptor: ResourceDescriptor,
    private readonly target: Uint8Array,
    hasher: Hasher,
    private readonly moveWithChecksum: MoveWithChecksum = (place, chunk) => {
      place.set(chunk);
      return hasher.checksum(chunk);
    },
  ) {
    this.digest = hasher.createDigest();
  }

  accept({ offset, data, checksum }: FetchResponse): void {
    const expectedBytes = Math.min(CHUNK_BYTES, this.descriptor.bytes - this.receivedBytes);
    if (offset !== this.receivedBytes || data.byteLength !== expectedBytes || expectedBytes === 0) {
      throw this.corrupt(
        `${data.byteLength} bytes came at offset ${offset} where ${expectedBytes} of ${this.descriptor.bytes} were expected at ${this.receivedBytes}`,
      );
    }
    const place = this.target.subarray(offset, offset + expectedBytes);
    const expected = Uint8Array.from(checksum);
    if (!Buffer.from(this.moveWithChecksum(place, data)).equals(expected)) {
      throw this.corrupt(`the chunk at offset ${offset} does not match its checksum`);
    }
    this.receivedBytes += expectedBytes;
    this.digest.addChecksum(expected);
  }

  /** Throws when the source ended early. */
  requireAll(): void {
    const { bytes } = this.descriptor;
    if (this.receivedBytes !== bytes) throw this.corrupt(`the source ended after ${this.receivedBytes} of ${bytes} bytes`);
  }

  /** Throws when the content is not what the descriptor says. */
  requireDigest(): void {
    const actual = this.digest.hex();
    if (this.descriptor.digest !== undefined && this.descriptor.digest !== actual) {
      throw this.corrupt(`its digest is ${actual} instead of ${this.descriptor.digest}`);
    }
  }

  private corrupt(what: string): SecateurError {
    return new SecateurError('CORRUPT_DATA', `Resource ${this.descriptor.resource} is damaged: ${what}.`);
  }
}

function allocate({ resource, bytes }: ResourceDescriptor): Buffer {
  try {
    return Buffer.allocUnsafeSlow(bytes);
  } catch (cause) {
    const metadata = { neededBytes: String(bytes), availableBytes: String(constants.MAX_LENGTH) };
    throw new SecateurError('RESOURCE_EXHAUSTED', `Resource ${resource} of ${bytes} bytes does not fit into memory.`, { cause, metadata });
  }
}
