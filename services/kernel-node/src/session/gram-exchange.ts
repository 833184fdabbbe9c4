import { SecateurError } from '@secateur/core';
import type { EngineSession } from '@secateur/native';
import type { Resources } from '@secateur/rpc';
import type { GramMatrix, GramSums, PeerResource } from '@secateur/proto/kernel_service';
import type { InputSite } from '@secateur/proto/statistics';
import { traceEngineCall } from '../engine/trace-engine-call.js';
import { toEngineSite } from '../engine/wire-types.js';
import type { PeerReader } from './peer-reader.js';

/**
 * Gram matrices of one session: sums that its groups made are served to other nodes, and sums of all nodes become matrices, on this node or on another.
 * All of it is kept outside of the engine, which may be busy when another node asks.
 */
export class GramExchange {
  private readonly held = new Map<string, Uint8Array>();
  /** Matrices that are pulled from other nodes; siblings share their input's. */
  private readonly pulled = new Map<string, Promise<Uint8Array>>();
  private published = 0;
  /** The block in use; others are released while it is, when lost hidden states are made again. */
  private shardId: string | undefined;
  /** The block and the inputs of the stage that sums were taken of last. */
  private stage = '';

  constructor(
    private readonly sessionId: string,
    private readonly engine: EngineSession,
    private readonly resources: Resources,
    private readonly peers: PeerReader,
  ) {}

  /** Takes what was added to the matrices of a block since the last time. Nobody needs those of the stage before any more: all of it is done. */
  async publishSums(shardId: string, sites: readonly InputSite[]): Promise<GramSums[]> {
    const stage = `${shardId} ${[...sites].sort().join()}`;
    if (stage !== this.stage) this.clear();
    this.stage = stage;
    this.shardId = shardId;
    const taken: GramSums[] = [];
    for (const site of sites) {
      const { groups, sums, heldOut, drift } = await traceEngineCall(() => this.engine.takeGramSums(shardId, toEngineSite(site)));
      if (groups.length === 0) continue;
      taken.push({
        site,
        groupIndices: [...groups],
        resource: this.publish(sums),
        heldOut: heldOut.byteLength === 0 ? undefined : this.publish(heldOut),
        drift: drift.byteLength === 0 ? undefined : this.publish(drift),
      });
    }
    return taken;
  }

  /** Makes matrices of sums. */
  async reduce(matrices: readonly GramMatrix[], signal: AbortSignal): Promise<PeerResource[]> {
    const made: PeerResource[] = [];
    for (const { columns, driftRows, sums } of matrices) {
      const parts: Uint8Array[] = [];
      for (const part of sums) parts.push(await this.read(part, signal));
      const matrix = await traceEngineCall(() => this.engine.reduceGram(columns, driftRows, parts, { signal }));
      made.push(this.publish(new Uint8Array(matrix.buffer, matrix.byteOffset, matrix.byteLength)));
    }
    return made;
  }

  /** A matrix that a projection of a block is repaired by, of this node or another. */
  async matrix(shardId: string, descriptor: PeerResource, signal: AbortSignal): Promise<Uint8Array> {
    this.shardId = shardId;
    if (descriptor.endpoint === '') return this.own(descriptor);
    const key = `${descriptor.endpoint}/${descriptor.resource}`;
    let pulled = this.pulled.get(key);
    if (pulled === undefined) {
      pulled = this.read(descriptor, signal);
      this.pulled.set(key, pulled);
      pulled.catch(() => this.pulled.delete(key));
    }
    return pulled;
  }

  /** Frees what belongs to a block. */
  release(shardId: string): void {
    if (shardId === this.shardId) this.clear();
  }

  close(): void {
    this.clear();
  }

  private clear(): void {
    this.resources.withdraw(this.prefix);
    this.held.clear();
    this.pulled.clear();
  }

  private get prefix(): string {
    return `sessions/${this.sessionId}/gram/`;
  }

  private publish(bytes: Uint8Array): PeerResource {
    this.published += 1;
    const resource = `${this.prefix}${this.published}`;
    this.held.set(resource, bytes);
    this.resources.publishBytes(resource, bytes);
    return { endpoint: '', resource, bytes: bytes.byteLength };
  }

  private own({ resource, bytes }: PeerResource): Uint8Array {
    const held = this.held.get(resource);
    if (held?.byteLength !== bytes) {
      throw new SecateurError('FAILED_PRECONDITION', `Session ${this.sessionId} holds no ${resource} of ${bytes} bytes.`);
    }
    return held;
  }

  private async read(descriptor: PeerResource, signal: AbortSignal): Promise<Uint8Array> {
    if (descriptor.endpoint === '') return this.own(descriptor);
    return this.peers.read(descriptor.endpoint, descriptor, 'a Gram matrix', signal);
  }
}
