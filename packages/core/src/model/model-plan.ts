import type { Architecture, DataType, TensorRole } from '@secateur/proto/model';
import type { InputSite } from '@secateur/proto/statistics';

/** A tensor of the checkpoint and what it does. */
export interface PlannedTensor {
  /** Name in the checkpoint. */
  readonly name: string;
  readonly role: TensorRole;
  readonly dataType: DataType;
  readonly shape: readonly number[];
}

/** A part of the model that is loaded, used and released as a whole. */
export interface PlannedShard {
  /** `embedding`, `block/<index>` or `head`. */
  readonly id: string;
  readonly tensors: readonly PlannedTensor[];
  /** Of a block: keys that each query sees, its own the last; 0 for all. */
  readonly attentionWindow: number;
}

/** A weight matrix that is pruned. */
export interface PlannedProjection {
  /** Name in the checkpoint, with `.weight`. */
  readonly name: string;
  readonly role: TensorRole;
  readonly rows: number;
  readonly columns: number;
  /** The input it shares with its siblings. */
  readonly site: InputSite;
}

export interface PlannedBlock {
  readonly index: number;
  readonly shard: PlannedShard;
  /** In network order: query, key, value, output, gate, up, down. */
  readonly projections: readonly PlannedProjection[];
}

/** Which tensors make up which shard of a checkpoint. */
export interface ModelPlan {
  readonly architecture: Architecture;
  readonly embedding: PlannedShard;
  readonly blocks: readonly PlannedBlock[];
  readonly head: PlannedShard;
}
