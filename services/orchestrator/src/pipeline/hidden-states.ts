import { assignGroups, SecateurError } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { HiddenStream } from '@secateur/proto/kernel_service';
import type { ShardDescriptor } from '@secateur/proto/model';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';

/** What hidden states are recomputed from: the embedding and the blocks as they are after pruning. */
export interface ReplaySource {
  readonly embedding: ShardDescriptor;
  block(index: number): ShardDescriptor;
  /** Where those of the dense model are kept too: the blocks as they were. */
  readonly denseBlock?: ((index: number) => ShardDescriptor) | undefined;
}

interface GroupState {
  readonly group: CalibrationGroup;
  /** The member whose node keeps the hidden states. */
  holder: NodeSession | undefined;
  /** The block whose input the hidden states are; -1 before they are embedded. */
  position: number;
}

/** Runs one step for some groups on their holder and tells each group that is done. */
export type GroupStep = (
  member: NodeSession,
  groupIndices: readonly number[],
  onGroup: (groupIndex: number) => void,
  signal: AbortSignal,
) => Promise<void>;

/**
 * Where the hidden states of each calibration group are and how far they have come. They are a cache: what a lost node held is
 * recomputed on the others from the tokens and the finished blocks.
 */
export class HiddenStates {
  private readonly states: readonly GroupState[];

  constructor(
    groups: readonly CalibrationGroup[],
    private readonly crew: Crew,
    private readonly source: ReplaySource,
  ) {
    this.states = groups.map((group) => ({ group, holder: undefined, position: -1 }));
  }

  get groupCount(): number {
    return this.states.length;
  }

  /**
   * Runs a step once for every group, whose hidden states are then the input of block `position`. `prepare` makes a member ready for the
   * step. With `advances` the step turns the input of the block into the input of the next. With `groups` only those take part.
   */
  async forEachGroup(
    position: number,
    {
      prepare,
      step,
      advances,
      groups,
    }: {
      prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
      step: GroupStep;
      advances: boolean;
      groups?: ReadonlySet<number> | undefined;
    },
    signal: AbortSignal,
  ): Promise<void> {
    const pending = new Set(this.states.filter(({ group }) => groups?.has(group.index) ?? true));
    while (pending.size > 0) {
      const members = await this.crew.gather(signal);
      this.place(members);
      await this.crew.each(async (member, linked) => {
        const mine = [...pending].filter((state) => state.holder === member);
        if (mine.length === 0) return;
        await this.bringTo(position, member, mine, linked);
        await prepare(member, linked);
        const byIndex = new Map(mine.map((state) => [state.group.index, state]));
        await step(
          member,
          [...byIndex.keys()],
          (groupIndex) => {
            const state = byIndex.get(groupIndex);
            if (state === undefined) return;
            if (advances) state.position = position + 1;
            pending.delete(state);
          },
          linked,
        );
        const left = mine.filter((state) => pending.has(state));
        if (left.length > 0) {
          throw new SecateurError(
            'CORRUPT_DATA',
            `Node ${member.node.name} ended a step without answering ${left.length} of ${mine.length} groups.`,
          );
        }
      }, signal);
    }
  }

  /** Gives groups without a living holder to the members with the fewest. */
  private place(members: readonly NodeSession[]): void {
    const homeless: number[] = [];
    for (const [index, state] of this.states.entries()) {
      if (state.holder !== undefined && this.crew.has(state.holder)) continue;
      state.holder = undefined;
      state.position = -1;
      homeless.push(index);
    }
    const loads = members.map((member) => this.states.filter((state) => state.holder === member).length);
    for (const [slot, indices] of assignGroups(homeless, loads).entries()) {
      for (const index of indices) this.states[index]!.holder = members[slot];
    }
  }

  /** Recomputes hidden states that are behind `position`. */
  private async bringTo(position: number, member: NodeSession, states: readonly GroupState[], signal: AbortSignal): Promise<void> {
    const fresh = states.filter((state) => state.position < 0);
    if (fresh.length > 0) {
      await withSpan(SpanName.EMBED, { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: fresh.length } }, async () => {
        await member.loadShard(this.source.embedding, signal);
        await member.embed(
          this.source.embedding.id,
          fresh.map((state) => state.group),
          signal,
        );
        await member.releaseShard(this.source.embedding.id, signal);
      });
      for (const state of fresh) state.position = 0;
    }
    const from = Math.min(...states.map((state) => state.position));
    if (from >= position) return;
    // A node holds two blocks at most: the one in use and the one replayed through.
    await member.releasePrefetched(signal);
    for (let index = from; index < position; index++) {
      const behind = states.filter((state) => state.position === index);
      const groupIndices = behind.map((state) => state.group.index);
      const replay = async (block: ShardDescriptor, stream: HiddenStream, onGroup: (groupIndex: number) => void): Promise<void> => {
        const shard = { ...block, id: `block/${index}/replay` };
        await member.loadShard(shard, signal);
        await member.propagate(shard.id, groupIndices, [stream], onGroup, signal);
        await member.releaseShard(shard.id, signal);
      };
      const byIndex = new Map(behind.map((state) => [state.group.index, state]));
      const attributes = { [Attribute.NODE]: member.node.name, [Attribute.LAYER_INDEX]: index, [Attribute.GROUPS]: behind.length };
      await withSpan(SpanName.REPLAY, { attributes }, async () => {
        if (this.source.denseBlock !== undefined) await replay(this.source.denseBlock(index), HiddenStream.DENSE, () => undefined);
        await replay(this.source.block(index), HiddenStream.PRUNED, (groupIndex) => {
          const state = byIndex.get(groupIndex);
          if (state !== undefined) state.position = index + 1;
        });
      });
    }
  }
}
