import type { ShardDescriptor } from '@secateur/proto/model';

/**
 * Which member of a crew pulls a shard from which. All stand in one line: the first to begin pulls from this process, each other one from the one
 * that began last before it and passes on what it has so far. So this process sends a shard once, and a node sends it to one other.
 */
export class ShardSources<Member> {
  /** What each member received last, which is what it can pass on; in the order they began. */
  private readonly received = new Map<Member, string>();

  /** A member is about to load a shard. Returns whom it pulls from; undefined for this process. */
  begin(member: Member, shard: ShardDescriptor): Member | undefined {
    const content = contentOf(shard);
    // It has the shard, or failed to get it: those who began later may be waiting for it.
    if (this.received.get(member) === content) return undefined;
    const source = [...this.received].findLast(([, received]) => received === content)?.[0];
    this.received.delete(member);
    this.received.set(member, content);
    return source;
  }

  remove(member: Member): void {
    this.received.delete(member);
  }
}

/** Not the id, by which a block is known before and after it is pruned. */
function contentOf({ tensors }: ShardDescriptor): string {
  return tensors.map(({ resource }) => resource).join('\n');
}
