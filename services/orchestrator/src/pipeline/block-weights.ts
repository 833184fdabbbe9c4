import type { Resources } from '@secateur/rpc';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { MaskDescriptor } from '@secateur/proto/kernel_service';
import type { ShardDescriptor } from '@secateur/proto/model';
import type { NodeSession } from '../scheduler/node-session.js';
import type { AllocatedProjection } from './allocate-block.js';

/**
 * The weights of a block while it is pruned: the dense ones and what has been dropped of them so far. Knows what each member has of that, so
 * that one that joins late, or comes back, computes with the same weights as the others.
 */
export class BlockWeights {
  /** In the order they were dropped. */
  private readonly masks: MaskDescriptor[] = [];
  /** How many of the masks a member that holds the block has applied. */
  private readonly applied = new WeakMap<NodeSession, number>();
  private readonly prefix: string;

  constructor(
    jobId: string,
    private readonly dense: ShardDescriptor,
    /** Its bytes are pulled while members work on this block. */
    private readonly next: ShardDescriptor | undefined,
    private readonly resources: Resources,
  ) {
    this.prefix = `jobs/${jobId}/masks/${dense.id}/`;
  }

  get shardId(): string {
    return this.dense.id;
  }

  /** From now on members compute without what these masks drop, and with repaired weights where there are some. */
  drop(allocated: readonly AllocatedProjection[]): void {
    for (const { projection, mask, weights, digest } of allocated) {
      const resource = `${this.prefix}${projection.name}`;
      this.resources.publishBytes(resource, weights ?? mask);
      this.masks.push({ projection: projection.role, resource, repaired: weights !== undefined, digest });
    }
  }

  /** Brings what a member has of the block to what all are to have. */
  readonly prepare = async (member: NodeSession, signal: AbortSignal): Promise<void> => {
    const { dense, next } = this;
    if (!member.holds(dense.id)) {
      await member.loadShard(dense, signal);
      this.applied.set(member, 0);
      if (next !== undefined) member.prefetch(next, signal);
    }
    const masks = this.masks.slice(this.applied.get(member));
    if (masks.length === 0) return;
    await withSpan(SpanName.APPLY, { attributes: { [Attribute.NODE]: member.node.name } }, () =>
      member.applyMasks(dense.id, masks, signal),
    );
    this.applied.set(member, this.masks.length);
  };

  /** The block is not used any more. */
  async release(member: NodeSession, signal: AbortSignal): Promise<void> {
    await member.releaseShard(this.dense.id, signal);
  }

  /** Nobody pulls masks any more. */
  withdraw(): void {
    this.resources.withdraw(this.prefix);
  }
}
