import type { Checkpoint } from '@secateur/checkpoint';
import type { PlannedShard } from '@secateur/core';
import type { ShardDescriptor } from '@secateur/proto/model';

/** The wire form of a shard whose tensors are served by their names. `digests`: of each of them. */
export function describeStoredShard(
  { id, tensors }: PlannedShard,
  checkpoint: Checkpoint,
  digests: ReadonlyMap<string, string>,
): ShardDescriptor {
  return {
    id,
    attentionWindow: 0,
    tensors: tensors.map(({ name, role, dataType, shape }) => ({
      name,
      role,
      dataType,
      shape: [...shape],
      resource: name,
      bytes: checkpoint.tensor(name).bytes,
      digest: digests.get(name) ?? '',
      path: '',
      pathOffset: 0,
    })),
  };
}
