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
import { StepShares } from './step-shares.js';

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

/** Runs one step for some of the groups that a member holds and tells each that is done. */
export type GroupStep = (
  member: NodeSession,
  groupIndices: readonly number[],
  onGroup: (groupIndex: number) => void,
  signal: AbortSignal,
) => Promise<void>;

/** A step for all groups. */
export interface Pass {
  readonly step: GroupStep;
  /** Makes a member ready for the step; again, where it is ready already. */
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  /** The step turns the input of the block into the input of the next. */
  readonly advances: boolean;
  /** Only these take part. */
  readonly groups?: ReadonlySet<number> | undefined;
}

/**
 * Where the hidden states of each calibration group are and how far they have come. They are a cache: what a lost node held is
 * recomputed on the others from the tokens and the finished blocks. They move between nodes while a job runs: to one that joins, away from one
 * that is slower than the others or that leaves.
 */
export class HiddenStates {
  private readonly states: readonly GroupState[];
  /** Of the largest. */
  private readonly tokensOfGroup: number;
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
    this.tokensOfGroup = Math.max(...groups.map(countTokens));
    crew.beforeLeaving = (leaving, staying, signal) => this.takeOver(leaving, staying, signal);
  }

  get groupCount(): number {
    return this.states.length;
  }

  /** Of a group; undefined where there is none of that index. */
  samplesOf(groupIndex: number): number | undefined {
    return this.states.find(({ group }) => group.index === groupIndex)?.group.samples;
  }

  /** Runs a step once for every group, whose hidden states are then the input of block `position`. */
  async forEachGroup(position: number, pass: Pass, signal: AbortSignal): Promise<void> {
    const pending = new Set(this.states.filter(({ group }) => pass.groups?.has(group.index) ?? true));
    if (pass.groups === undefined) await this.balance(position, signal);
    while (pending.size > 0) {
      const members = await this.crew.gather(signal);
      this.place(members);
      const paces = this.pace.of(members);
      const shares = new StepShares<NodeSession, GroupState>(this.now);
      await this.crew.each(async (member, linked) => {
        shares.enter(member);
        const onGroup = (state: GroupState): void => {
          pending.delete(state);
          if (pass.advances) state.position = position + 1;
          shares.finish(member);
        };
        try {
          const own = [...pending].filter(({ holder }) => holder === member);
          if (own.length > 0) {
            await this.bringTo(position, member, own, linked);
            await pass.prepare(member, linked);
          }
          shares.open(member, own, paces?.[members.indexOf(member)]);
          do {
            for (let given = shares.give(member); given.length > 0; given = shares.give(member)) {
              await runStep(pass.step, member, given, onGroup, linked);
            }
          } while (await this.takeFromLast(shares, member, pass, linked));
        } finally {
          const { groups, seconds } = shares.close(member);
          if (groups > 0) this.pace.add(member, groups, seconds);
        }
      }, signal);
    }
  }

  /** Brings a member that has done its share of a step groups of the one that would end last; false when it is to do no more. */
  private async takeFromLast(
    shares: StepShares<NodeSession, GroupState>,
    member: NodeSession,
    pass: Pass,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (member.node.leaving) return false;
    const secondsToMove = member.stateBytes(this.tokensOfGroup) / TRANSFER_BYTES_PER_SECOND;
    const most = this.capacityOf(member) - this.heldBy(member).length;
    const taken = await shares.takeOver(member, { secondsToMove, most }, signal);
    if (taken === undefined) return false;
    await this.move(
      taken.groups.map((state) => ({ state, to: member })),
      signal,
    );
    const moved = taken.groups.filter(({ holder }) => holder === member);
    shares.putBack({ from: taken.from, groups: taken.groups.filter((state) => !moved.includes(state)) });
    if (moved.length === 0) return false;
    await pass.prepare(member, signal);
    shares.add(member, moved);
    return true;
  }

  /** Before a block, once: groups move from members that hold the others up to those that are done before. */
  private async balance(position: number, signal: AbortSignal): Promise<void> {
    if (position <= this.balancedAt) return;
    this.balancedAt = position;
    const members = await this.crew.gather(signal);
    const paces = this.pace.of(members);
    if (paces === undefined || members.length === 1) return;
    const held = members.map((member) => this.heldBy(member));
    const holders = members.map((member, slot) => ({
      groups: held[slot]!.length,
      secondsPerGroup: paces[slot]!,
      capacity: this.capacityOf(member),
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

  /** The most groups a member has room for. */
  private capacityOf(member: NodeSession): number {
    return Math.floor(member.tokenCapacity / this.tokensOfGroup);
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
    if (states.every((state) => state.position >= position)) return;
    // A node holds two shards at most: the block in use, and the embedding or the block that is replayed through.
    await member.releasePrefetched(signal);
    await this.begin(
      position,
      member,
      states.filter((state) => state.position < 0),
      signal,
    );
    const from = Math.min(...states.map((state) => state.position));
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

/** Every one of the groups has to be told as done. */
async function runStep(
  step: GroupStep,
  member: NodeSession,
  states: readonly GroupState[],
  onGroup: (state: GroupState) => void,
  signal: AbortSignal,
): Promise<void> {
  const left = new Map(states.map((state) => [state.group.index, state]));
  await step(
    member,
    [...left.keys()],
    (groupIndex) => {
      const state = left.get(groupIndex);
      if (state === undefined) return;
      left.delete(groupIndex);
      onGroup(state);
    },
    signal,
  );
  if (left.size > 0) throw member.wrongAnswer(`a step of ${states.length} groups`, `${left.size} of them left out`);
}
