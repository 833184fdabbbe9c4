import { moveWithChecksum } from '@secateur/native';
import type { TensorDescriptor } from '@secateur/proto/model';
import { fetchResourceInto, type Channel, type FetchOptions } from '@secateur/rpc';
import type { SharedVolume } from './shared-volume.js';

/** While one resource ends and another begins the connection would rest. */
const PULLS_AT_ONCE = 2;

/** Connects to the TensorService of an orchestrator or of another node. */
export type ConnectToSource = (address: string) => Channel;

export const FETCH_OPTIONS: FetchOptions = { timeoutMs: 3_600_000, idleTimeoutMs: 60_000, moveWithChecksum };

/** Reads each tensor into its target from the shared volume, or pulls it. When one fails, the rest is given up; no target is written to once this is over. */
export async function loadTensors(
  volume: SharedVolume,
  source: Channel,
  tensors: readonly TensorDescriptor[],
  targets: readonly Uint8Array[],
  signal: AbortSignal,
): Promise<void> {
  const failure = new AbortController();
  const options = { ...FETCH_OPTIONS, signal: AbortSignal.any([signal, failure.signal]) };
  const remaining = tensors.entries();
  const pullRemaining = async (): Promise<void> => {
    try {
      for (const [index, tensor] of remaining) {
        const target = targets[index]!;
        if (!(await volume.read(tensor, target, options.signal))) await fetchResourceInto(source, tensor, target, options);
      }
    } catch (error) {
      // Only the first counts: it is why the others fail.
      failure.abort(error);
    }
  };
  await Promise.all(Array.from({ length: PULLS_AT_ONCE }, pullRemaining));
  if (failure.signal.aborted) throw failure.signal.reason;
}
