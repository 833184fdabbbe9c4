import type { TensorDescriptor } from '@secateur/proto/model';
import { fetchResourceInto, type Channel } from '@secateur/rpc';
import { count } from '@secateur/telemetry';
import { FETCH_OPTIONS } from './fetch-options.js';
import type { ShardPeer } from './shard-peers.js';
import type { ShardRelay } from './shard-relay.js';
import type { SharedVolume } from './shared-volume.js';

/** While one resource ends and another begins the connection would rest. */
export const PULLS_AT_ONCE = 2;

/** Where a shard can come from, the first that has it. */
export interface ShardSources {
  readonly volume: SharedVolume;
  readonly peer: ShardPeer | undefined;
  readonly orchestrator: Channel;
}

/**
 * Fills each target with its tensor, and lets the relay pass on what has come. When one fails, the rest is given up; no target is written to once
 * this is over. Returns the bytes of each source.
 */
export async function loadTensors(
  sources: ShardSources,
  relay: ShardRelay,
  tensors: readonly TensorDescriptor[],
  targets: readonly Uint8Array[],
  signal: AbortSignal,
): Promise<Record<keyof ShardSources, number>> {
  const failure = new AbortController();
  const linked = AbortSignal.any([signal, failure.signal]);
  const loaded = { volume: 0, peer: 0, orchestrator: 0 };
  const remaining = tensors.entries();
  const loadRemaining = async (): Promise<void> => {
    try {
      for (const [index, tensor] of remaining) {
        const target = targets[index]!;
        const relayed = relay.begin(tensor.resource, target);
        const source = await loadTensor(sources, tensor, target, { signal: linked, onReceived: (bytes) => relayed.advance(bytes) });
        relayed.advance(tensor.bytes);
        loaded[source] += tensor.bytes;
        count('RECEIVED', tensor.bytes, { 'secateur.source': source });
      }
    } catch (error) {
      // Only the first counts: it is why the others fail.
      failure.abort(error);
    }
  };
  await Promise.all(Array.from({ length: PULLS_AT_ONCE }, loadRemaining));
  if (failure.signal.aborted) throw failure.signal.reason;
  return loaded;
}

/** `onReceived` is not told of what is read from the volume: that counts when all of it is right. */
async function loadTensor(
  { volume, peer, orchestrator }: ShardSources,
  tensor: TensorDescriptor,
  target: Uint8Array,
  { signal, onReceived }: { readonly signal: AbortSignal; readonly onReceived: (bytes: number) => void },
): Promise<keyof ShardSources> {
  if (await volume.read(tensor, target, signal)) return 'volume';
  const options = { ...FETCH_OPTIONS, signal, onReceived };
  if (await peer?.pull(tensor, target, options)) return 'peer';
  await fetchResourceInto(orchestrator, tensor, target, options);
  return 'orchestrator';
}
