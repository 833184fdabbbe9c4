import { EventEmitter, once } from 'node:events';
import { SecateurError } from '@secateur/core';
import type { ByteSource, Resources } from '@secateur/rpc';

/** What other nodes ask for to get a tensor of a shard, or its mask, that a session has received, or receives. */
export function relayedResource(sessionId: string, resource: string): string {
  return `sessions/${sessionId}/shards/${resource}`;
}

/**
 * Passes on to other nodes what a session receives of shards, as far as it has come. It keeps nothing for them: a tensor is served from the memory
 * it is received in until that is used for the next, which waits for nobody. Blocks follow each other in the same memory, so a reader may be nearly
 * a block late.
 */
export class ShardRelay {
  /** By the memory they are in. */
  private readonly served = new Map<Uint8Array, RelayedTensor>();
  /** Of all that were ever served: who asks for one that is gone is told so, and need not wait for it to come. */
  private readonly names = new Set<string>();

  constructor(
    private readonly sessionId: string,
    private readonly resources: Resources,
  ) {}

  /** A tensor is about to be received into this memory, over what was there. */
  begin(resource: string, memory: Uint8Array): RelayedTensor {
    const name = relayedResource(this.sessionId, resource);
    this.end(memory);
    for (const [other, tensor] of this.served) if (tensor.name === name) this.end(other);
    const tensor = new RelayedTensor(name, memory);
    this.served.set(memory, tensor);
    this.names.add(name);
    this.resources.publish(name, tensor);
    return tensor;
  }

  /** Nothing is served from this memory any more. */
  end(memory: Uint8Array): void {
    this.served.get(memory)?.end();
    this.served.delete(memory);
  }

  close(): void {
    for (const memory of this.served.keys()) this.end(memory);
    for (const name of this.names) this.resources.withdraw(name);
  }
}

/** A tensor of which more and more is there. Readers wait for what is not. */
class RelayedTensor implements ByteSource {
  readonly bytes: number;
  private receivedBytes = 0;
  private readonly changes = new EventEmitter().setMaxListeners(0);

  constructor(
    readonly name: string,
    private memory: Uint8Array | undefined,
  ) {
    this.bytes = this.memory?.byteLength ?? 0;
  }

  /** So many bytes of the beginning are there. They are the same ones if they come once more. */
  advance(bytes: number): void {
    this.receivedBytes = Math.max(this.receivedBytes, bytes);
    this.changes.emit('change');
  }

  async read(offset: number, length: number, signal: AbortSignal, room: Uint8Array): Promise<Uint8Array> {
    while (this.memory !== undefined && this.receivedBytes < offset + length) await once(this.changes, 'change', { signal });
    if (this.memory === undefined) throw new SecateurError('FAILED_PRECONDITION', `The memory of ${this.name} is used for another tensor.`);
    // Copied before anything else can be put there.
    room.set(this.memory.subarray(offset, offset + length));
    return room;
  }

  end(): void {
    this.memory = undefined;
    this.changes.emit('change');
  }
}
