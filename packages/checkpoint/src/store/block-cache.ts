/** Bytes read at a time where less is asked for: a request takes as long as some megabytes. */
export const BLOCK_BYTES = 4 << 20;
/** Blocks that all readers of the process keep together. */
const MAXIMUM_BLOCKS = 16;

/** The blocks that were read last, of all objects. Those that are being read count, so that two readers never ask for the same. */
export class BlockCache {
  private readonly blocks = new Map<string, Promise<Buffer>>();

  /** The block with that key, read by `read` unless it is here. A failure is not kept. */
  take(key: string, read: () => Promise<Buffer>): Promise<Buffer> {
    const known = this.blocks.get(key);
    const block = known ?? read();
    // Last in the map is last used.
    this.blocks.delete(key);
    this.blocks.set(key, block);
    if (known === undefined) {
      block.catch(() => this.blocks.delete(key));
      const [oldest] = this.blocks.keys();
      if (this.blocks.size > MAXIMUM_BLOCKS && oldest !== undefined) this.blocks.delete(oldest);
    }
    return block;
  }
}
