import type { EngineSession } from '@secateur/native';
import { SecateurError } from '@secateur/core';
import type { ResourceDescriptor, Resources } from '@secateur/rpc';
import type { PeerResource, SavedGroup } from '@secateur/proto/kernel_service';
import { traceEngineCall } from '../engine/trace-engine-call.js';
import { toEngineGroup } from '../engine/wire-types.js';
import type { PeerReader } from './peer-reader.js';

/** Hidden states of one session that move: to other nodes, to the orchestrator that keeps them, and from either of them. */
export class HiddenStateExchange {
  constructor(
    private readonly sessionId: string,
    private readonly engine: EngineSession,
    private readonly resources: Resources,
    /** Pulls from where the session pulls its other resources. */
    private readonly fetch: (descriptor: ResourceDescriptor, signal: AbortSignal) => Promise<Buffer>,
    private readonly peers: PeerReader,
  ) {}

  /** Copies of hidden states as they are now, which are served until they are withdrawn. */
  async publish(groupIndices: readonly number[], signal: AbortSignal): Promise<PeerResource[]> {
    const published: PeerResource[] = [];
    for (const groupIndex of groupIndices) {
      const saved = await traceEngineCall(() => this.engine.saveHiddenStates(groupIndex, { signal }));
      const resource = this.resourceOf(groupIndex);
      this.resources.publishBytes(resource, saved);
      published.push({ endpoint: '', resource, bytes: saved.byteLength });
    }
    return published;
  }

  withdraw(groupIndices: readonly number[]): void {
    for (const groupIndex of groupIndices) this.resources.withdraw(this.resourceOf(groupIndex));
  }

  async restore(groups: readonly SavedGroup[], signal: AbortSignal): Promise<void> {
    for (const { group, states, digest } of groups) {
      if (group === undefined || states === undefined) {
        throw new SecateurError('INVALID_REQUEST', 'RestoreHiddenStates needs the tokens of each group and where its hidden states are.');
      }
      const descriptor = { resource: states.resource, bytes: states.bytes, ...(digest === '' ? {} : { digest }) };
      const saved =
        states.endpoint === ''
          ? await this.fetch(descriptor, signal)
          : await this.peers.read(states.endpoint, descriptor, `the hidden states of group ${group.index}`, signal);
      await traceEngineCall(() => this.engine.restoreHiddenStates(toEngineGroup(group), saved, { signal }));
    }
  }

  async release(groupIndices: readonly number[]): Promise<void> {
    this.withdraw(groupIndices);
    for (const groupIndex of groupIndices) await this.engine.releaseGroup(groupIndex);
  }

  close(): void {
    this.resources.withdraw(this.prefix);
  }

  private get prefix(): string {
    return `sessions/${this.sessionId}/hidden-states/`;
  }

  private resourceOf(groupIndex: number): string {
    return `${this.prefix}${groupIndex}`;
  }
}
