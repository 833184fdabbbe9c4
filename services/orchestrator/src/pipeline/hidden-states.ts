import { assignGroups, balanceGroups, SecateurError } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { HiddenStream } from '@secateur/proto/kernel_service';
import type { ShardDescriptor } from '@secateur/proto/model';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import type { Snapshots } from '../output/snapshots.js';
import { GroupPace } from './group-pace.js';
import { moveGroup } from './move-group.js';

/** What a network carries at least, to weigh moves: less than 1 Gbit/s. */
const TRANSFER_BYTES_PER_SECOND = 100e6;
/** Groups move when that saves so many times what it costs, and at least so long: what is measured of short steps is mostly noise. */
const LEAST_GAIN = 2;
const LEAST_SECONDS_SAVED = 1;

/** What hidden states are recomputed from: the embedding and the blocks as they are after pruning. */
export interface ReplaySource {
  /** Hidden states that were kept on the way; undefined where none ever are. */
  readonly snapshots?: Snapshots | undefined;
  /** Blocks that the hidden states pass through in all. */
  readonly blocks: number;
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
 * recomputed on the others from the tokens and the finished blocks. They move between nodes while a job runs: to one that joins, away from one
 * that is slower than the others or that leaves.
 */
export class HiddenStates {
  private readonly states: readonly GroupState[];
  private readonly pace = new GroupPace();
  /** The last block before which groups were balanced. */
  private balancedAt = -1;

  constructor(
    groups: readonly CalibrationGroup[],
    private readonly crew: Crew,
    private readonly source: ReplaySource,
    /** Milliseconds that only grow. */
    private readonly now: () => number = () => performance.now(),
  ) {
    this.states = groups.map((group) => ({ group, holder: undefined, position: -1 }));
    crew.beforeLeaving = (leaving, staying, signal) => this.takeOver(leaving, staying, signal);
  }

  get groupCount(): number {
    return this.states.length;
  }

  /** Of a group; undefined where there is none of that index. */
  samplesOf(groupIndex: number): number | undefined {
    return this.states.find(({ group }) => group.index === groupIndex)?.group.samples;
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
    if (groups === undefined) await this.balance(position, signal);
    while (pending.size > 0) {
      const members = await this.crew.gather(signal);
      this.place(members);
      await this.crew.each(async (member, linked) => {
        const mine = [...pending].filter((state) => state.holder === member);
        if (mine.length === 0) return;
        await this.bringTo(position, member, mine, linked);
        await prepare(member, linked);
        const byIndex = new Map(mine.map((state) => [state.group.index, state]));
        const started = this.now();
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
          throw member.wrongAnswer(`a step of ${mine.length} groups`, `${left.length} of them left out`);
        }
        this.pace.add(member, mine.length, (this.now() - started) / 1000);
      }, signal);
    }
  }

  /** Before a block, once: groups move from members that hold the others up to those that are done before. */
  private async balance(position: number, signal: AbortSignal): Promise<void> {
    if (position <= this.balancedAt) return;
    this.balancedAt = position;
    const members = await this.crew.gather(signal);
    const paces = this.pace.of(members);
    if (paces === undefined || members.length === 1) return;
    const held = members.map((member) => this.heldBy(member));
    const tokensOfGroup = Math.max(...this.states.map(({ group }) => countTokens(group)));
    const holders = members.map((member, slot) => ({
      groups: held[slot]!.length,
      secondsPerGroup: paces[slot]!,
      capacity: Math.floor(member.tokenCapacity / tokensOfGroup),
    }));
    const { moves, secondsSaved } = balanceGroups(holders);
    const moved = moves.map(({ from, to }) => ({ state: held[from]!.pop()!, to: members[to]! }));
    const bytes = moved.reduce((sum, { state, to }) => sum + to.stateBytes(countTokens(state.group)), 0);
    const saved = secondsSaved * (this.source.blocks - position);
    if (saved < LEAST_SECONDS_SAVED || saved < (LEAST_GAIN * bytes) / TRANSFER_BYTES_PER_SECOND) return;
    await this.move(moved, signal);
  }

  /** Groups of members that leave go to those that stay, which would have to replay them. */
  private async takeOver(leaving: readonly NodeSession[], staying: readonly NodeSession[], signal: AbortSignal): Promise<void> {
    const left = leaving.flatMap((member) => this.heldBy(member));
    const shares = assignGroups(
      left.map((_, place) => place),
      staying.map((member) => this.heldBy(member).length),
    );
    const moved = shares.flatMap((places, slot) => places.map((place) => ({ state: left[place]!, to: staying[slot]! })));
    await this.move(moved, signal);
  }

  /** Moves the hidden states of groups. Those for which there is no room stay where they are. */
  private async move(moved: readonly { readonly state: GroupState; readonly to: NodeSession }[], signal: AbortSignal): Promise<void> {
    const receivers = [...new Set(moved.map(({ to }) => to))];
    await this.crew.among(
      receivers,
      async (member, linked) => {
        const incoming = moved.filter(({ to }) => to === member).map(({ state }) => state);
        const attributes = { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: incoming.length };
        await withSpan(SpanName.MOVE, { attributes }, async () => {
          for (const state of incoming) {
            try {
              if (state.position >= 0) await moveGroup(state.group, state.holder!, member, linked);
            } catch (error) {
              if (error instanceof SecateurError && error.reason === 'RESOURCE_EXHAUSTED') return;
              throw error;
            }
            state.holder = member;
          }
        });
      },
      signal,
    );
  }

  /**
   * Keeps the hidden states as they are before a block. Without those of nodes that are lost meanwhile nothing is kept. One node sends at a time.
   * Gives the error of a file that cannot be written.
   */
  async keep(position: number, snapshots: Snapshots, signal: AbortSignal): Promise<SecateurError | undefined> {
    const members = await this.crew.gather(signal);
    return snapshots.take(position, this.groupCount, async (write) => {
      for (const sender of members) {
        await this.crew.among(
          [sender],
          async (member, linked) => {
            for (const { group, position: reached } of this.heldBy(member)) {
              if (reached === position) await write(group.index, await member.fetchHiddenStates(group.index, linked));
            }
          },
          signal,
        );
      }
    });
  }

  private heldBy(member: NodeSession): GroupState[] {
    return this.states.filter(({ holder }) => holder === member);
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
    const loads = members.map((member) => this.heldBy(member).length);
    for (const [slot, indices] of assignGroups(homeless, loads).entries()) {
      for (const index of indices) this.states[index]!.holder = members[slot];
    }
  }

  /** Makes hidden states that are nowhere: from the newest snapshot, unless that is of a later block or was changed, or from the tokens. */
  private async begin(position: number, member: NodeSession, states: readonly GroupState[], signal: AbortSignal): Promise<void> {
    const { snapshots } = this.source;
    if (states.length > 0 && snapshots?.position !== undefined && snapshots.position <= position) {
      try {
        await this.restore(snapshots, snapshots.position, member, states, signal);
      } catch (error) {
        // Others go on with their parts of it.
        if (!(error instanceof SecateurError && error.reason === 'CORRUPT_DATA')) throw error;
      }
    }
    const left = states.filter((state) => state.position < 0);
    if (left.length > 0) await this.embed(member, left, signal);
  }

  private async restore(
    snapshots: Snapshots,
    position: number,
    member: NodeSession,
    states: readonly GroupState[],
    signal: AbortSignal,
  ): Promise<void> {
    const attributes = { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: states.length };
    await withSpan(SpanName.RESTORE, { attributes }, async () => {
      for (const state of states) {
        const { resource, bytes, digest } = snapshots.of(state.group.index);
        const saved = { group: state.group, states: { endpoint: '', resource, bytes }, digest };
        await member.restoreHiddenStates([saved], signal);
        state.position = position;
      }
    });
  }

  private async embed(member: NodeSession, states: readonly GroupState[], signal: AbortSignal): Promise<void> {
    const attributes = { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: states.length };
    const { embedding } = this.source;
    await withSpan(SpanName.EMBED, { attributes }, async () => {
      await member.loadShard(embedding, signal);
      await member.embed(
        embedding.id,
        states.map((state) => state.group),
        signal,
      );
      await member.releaseShard(embedding.id, signal);
    });
    for (const state of states) state.position = 0;
  }

  /** Recomputes hidden states that are behind `position`. */
  private async bringTo(position: number, member: NodeSession, states: readonly GroupState[], signal: AbortSignal): Promise<void> {
    await this.begin(
      position,
      member,
      states.filter((state) => state.position < 0),
      signal,
    );
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

function countTokens({ samples, sequenceLength }: CalibrationGroup): number {
  return samples * sequenceLength;
}
