/** What members receive whole: the tensors of a shard, or masks of them. */
export type ReceivedContent = readonly { readonly resource: string }[];

/**
 * Which member of a crew pulls a shard, or masks, from which. All stand in one line: the first to begin pulls from this process, each other one from
 * the one that began last before it and passes on what it has so far. So this process sends a shard once, and a node sends it to one other.
 */
export class ShardSources<Member> {
  /** What each member received last, which is what it can pass on; in the order they began. */
  private readonly received = new Map<Member, string>();

  /** A member is about to receive something. Returns whom it pulls from; undefined for this process. */
  begin(member: Member, content: ReceivedContent): Member | undefined {
    // Not by an id, by which a block is known before and after it is pruned.
    const key = content.map(({ resource }) => resource).join('\n');
    // It has this, or failed to get it: those who began later may be waiting for it.
    if (this.received.get(member) === key) return undefined;
    const source = [...this.received].findLast(([, received]) => received === key)?.[0];
    this.received.delete(member);
    this.received.set(member, key);
    return source;
  }

  remove(member: Member): void {
    this.received.delete(member);
  }
}
