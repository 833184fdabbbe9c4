import { SecateurError } from '@secateur/core';
import { Changes } from '../scheduler/changes.js';

/** What a member is given at a time. Others can take over what it has not been given yet. */
const SECONDS_AT_A_TIME = 1;
/** Groups are taken over when the other would end at least so much later with them: what is measured of short steps is mostly noise. */
const LEAST_SECONDS_SAVED = 1;
/** How long a member with nothing left to do waits before it looks again at how far the others are. */
const LOOK_AGAIN_MS = 500;

interface Share<Group> {
  readonly waiting: Group[];
  /** By the steps before; undefined where there was none. */
  readonly expectedSecondsPerGroup: number | undefined;
  /** Groups it has been given and not done. */
  running: number;
  done: number;
  /** Spent on those that are done. */
  spentMs: number;
  /** Since when it is at the next of those that run. */
  sinceMs: number;
}

/** Groups that a member takes over from another. */
export interface TakenOver<Member, Group> {
  readonly from: Member;
  readonly groups: readonly Group[];
}

/**
 * What each member of a crew has to do in one step, as far as it has come. A member is given a second of work at a time; one that has done its share takes over
 * from the one that would end last, as long as the step is then over sooner.
 */
export class StepShares<Member extends object, Group> {
  private readonly shares = new Map<Member, Share<Group>>();
  /** Those that are being made ready. */
  private readonly entered = new Set<Member>();
  private readonly changes = new Changes();

  /** `now`: milliseconds that only grow. */
  constructor(private readonly now: () => number) {}

  /** A member takes part, and is made ready first. Others that are done before wait until it has begun. */
  enter(member: Member): void {
    this.entered.add(member);
  }

  /** A member begins, with groups that are where its hidden states are. */
  open(member: Member, groups: readonly Group[], expectedSecondsPerGroup: number | undefined): void {
    this.shares.set(member, { waiting: [...groups], expectedSecondsPerGroup, running: 0, done: 0, spentMs: 0, sinceMs: 0 });
    this.entered.delete(member);
    this.changes.tell();
  }

  /** What a member is to run now, of its share; nothing when all of it has been given out. */
  give(member: Member): readonly Group[] {
    const share = this.shareOf(member);
    const seconds = secondsPerGroup(share, this.now());
    const groups = share.waiting.splice(0, seconds === undefined ? Infinity : Math.max(1, Math.floor(SECONDS_AT_A_TIME / seconds)));
    share.running = groups.length;
    share.sinceMs = this.now();
    this.changes.tell();
    return groups;
  }

  /** A member has done one of the groups it was given. */
  finish(member: Member): void {
    const share = this.shareOf(member);
    const now = this.now();
    share.running -= 1;
    share.done += 1;
    share.spentMs += now - share.sinceMs;
    share.sinceMs = now;
  }

  /** Gives a member groups that it holds now. */
  add(member: Member, groups: readonly Group[]): void {
    this.shareOf(member).waiting.push(...groups);
  }

  /** Groups that could not be taken over. They stay undone in this round where the other has ended meanwhile. */
  putBack({ from, groups }: TakenOver<Member, Group>): void {
    this.shares.get(from)?.waiting.push(...groups);
  }

  /**
   * What a member with nothing left to do takes over, which the other is not given any more. Waits until that is worth while; undefined when it will not be.
   * `secondsToMove`: what it takes to bring a group to it. `most`: the groups it has room for.
   */
  async takeOver(
    member: Member,
    { secondsToMove, most }: { readonly secondsToMove: number; readonly most: number },
    signal: AbortSignal,
  ): Promise<TakenOver<Member, Group> | undefined> {
    while (!signal.aborted && most > 0) {
      const own = secondsPerGroup(this.shareOf(member), this.now());
      if (own === undefined) return undefined;
      const last = this.lastToEnd();
      if (last === undefined && this.entered.size === 0) return undefined;
      if (last !== undefined) {
        const count = Math.min(most, last.share.waiting.length, Math.floor(last.seconds / (own + secondsToMove + last.secondsPerGroup)));
        const seconds = Math.max(count * (own + secondsToMove), last.seconds - count * last.secondsPerGroup);
        if (last.seconds - seconds >= LEAST_SECONDS_SAVED) return { from: last.member, groups: last.share.waiting.splice(-count) };
      }
      await this.changes.wait(LOOK_AGAIN_MS, signal);
    }
    return undefined;
  }

  /** A member has ended, or failed to begin. Returns the groups it has done, and how long that took it. */
  close(member: Member): { readonly groups: number; readonly seconds: number } {
    const { done, spentMs } = this.shares.get(member) ?? { done: 0, spentMs: 0 };
    this.shares.delete(member);
    this.entered.delete(member);
    this.changes.tell();
    return { groups: done, seconds: spentMs / 1000 };
  }

  /** Of the members that have groups waiting. */
  private lastToEnd(): { member: Member; share: Share<Group>; seconds: number; secondsPerGroup: number } | undefined {
    const now = this.now();
    const candidates = [...this.shares].flatMap(([member, share]) => {
      const each = secondsPerGroup(share, now);
      if (share.waiting.length === 0 || each === undefined) return [];
      return [{ member, share, seconds: each * (share.waiting.length + share.running), secondsPerGroup: each }];
    });
    return candidates.reduce<(typeof candidates)[number] | undefined>(
      (last, candidate) => (last === undefined || candidate.seconds > last.seconds ? candidate : last),
      undefined,
    );
  }

  private shareOf(member: Member): Share<Group> {
    const share = this.shares.get(member);
    if (share === undefined) throw new SecateurError('INTERNAL', 'A member was asked for its share of a step that it has not begun.');
    return share;
  }
}

/** By what it has done in this step, else as expected, and no less than what it has been at allows; undefined when nothing is known. */
function secondsPerGroup<Group>(
  { expectedSecondsPerGroup, running, done, spentMs, sinceMs }: Share<Group>,
  nowMs: number,
): number | undefined {
  const known = done > 0 ? spentMs / done / 1000 : expectedSecondsPerGroup;
  if (known === undefined || running === 0) return known;
  return Math.max(known, (spentMs + nowMs - sinceMs) / (done + 1) / 1000);
}
