import { moveWithChecksum } from '@secateur/native';
import type { Channel, FetchOptions } from '@secateur/rpc';

/** Connects to the TensorService of an orchestrator or of another node. */
export type ConnectToSource = (address: string) => Channel;

export const FETCH_OPTIONS: FetchOptions = { timeoutMs: 3_600_000, idleTimeoutMs: 60_000, moveWithChecksum };
