import { setTimeout as delay } from 'node:timers/promises';
import { SecateurError } from '@secateur/core';
import { fetchResourceInto, type Channel, type FetchOptions } from '@secateur/rpc';
import type { ShardPeer as PeerAddress } from '@secateur/proto/kernel_service';
import type { TensorDescriptor } from '@secateur/proto/model';
import type { PeerReader } from './peer-reader.js';
import { relayedResource } from './shard-relay.js';

/** The orchestrator has the bytes too, so a peer is waited for less than it is. */
const IDLE_TIMEOUT_MS = 5_000;
const RECONNECT_TIMEOUT_MS = 500;
/** Two nodes are told to load a shard at nearly the same time: the peer may hear of it last. It may be late with any of the tensors. */
const BEGIN_TIMEOUT_MS = 2_000;
const BEGIN_POLL_MS = 10;
/** A peer that cannot be reached, or is stuck, is left alone for so long. */
const REST_MS = 60_000;

/** A peer is not pulled from any more, and why. */
export interface GivenUpPeer {
  readonly peer: string;
  readonly error: SecateurError;
}

/** Whether the peer has not begun, or has no more, what is asked for: the two are not in step, which happens. */
export function isOutOfStep({ error: { reason } }: GivenUpPeer): boolean {
  return reason === 'NOT_FOUND' || reason === 'FAILED_PRECONDITION';
}

/** Nodes that a session pulls shards and masks from. */
export class ShardPeers {
  /** By address. */
  private readonly restingUntil = new Map<string, number>();

  constructor(private readonly peers: PeerReader) {}

  /** The peer to pull a shard from; undefined when there is none to be asked. */
  use(address: PeerAddress | undefined, onGivenUp: (given: GivenUpPeer) => void): ShardPeer | undefined {
    if (address === undefined) return undefined;
    const { endpoint: peer, sessionId } = address;
    if (performance.now() < (this.restingUntil.get(peer) ?? 0)) return undefined;
    return new ShardPeer(this.peers.connect(peer), sessionId, (error) => {
      if (error.reason === 'UNAVAILABLE' || error.reason === 'DEADLINE_EXCEEDED') this.restingUntil.set(peer, performance.now() + REST_MS);
      onGivenUp({ peer, error });
    });
  }
}

/** The node that one shard, or its masks, is pulled from, as long as that goes well. */
export class ShardPeer {
  private beginsUntil = performance.now() + BEGIN_TIMEOUT_MS;
  private isGivenUp = false;

  constructor(
    private readonly channel: Channel,
    private readonly sessionId: string,
    private readonly onGivenUp: (error: SecateurError) => void,
  ) {}

  /** Fills `target` with a tensor's bytes. False when they, and all others of the shard, are to be pulled from the orchestrator. */
  async pull(tensor: TensorDescriptor, target: Uint8Array, options: FetchOptions & { readonly signal: AbortSignal }): Promise<boolean> {
    const { signal, onReceived } = options;
    const { bytes, digest } = tensor;
    const descriptor = { resource: relayedResource(this.sessionId, tensor.resource), bytes, digest };
    const peerOptions: FetchOptions = {
      ...options,
      idleTimeoutMs: IDLE_TIMEOUT_MS,
      reconnectTimeoutMs: RECONNECT_TIMEOUT_MS,
      onReceived: (received) => {
        this.beginsUntil = performance.now() + BEGIN_TIMEOUT_MS;
        onReceived?.(received);
      },
    };
    while (!this.isGivenUp) {
      try {
        await fetchResourceInto(this.channel, descriptor, target, peerOptions);
        return true;
      } catch (error) {
        if (signal.aborted || !(error instanceof SecateurError)) throw error;
        if (this.mayBegin(error)) await delay(BEGIN_POLL_MS);
        else this.giveUp(error);
      }
    }
    return false;
  }

  private mayBegin({ reason }: SecateurError): boolean {
    return reason === 'NOT_FOUND' && performance.now() < this.beginsUntil;
  }

  private giveUp(error: SecateurError): void {
    if (this.isGivenUp) return;
    this.isGivenUp = true;
    this.onGivenUp(error);
  }
}
