import type { NodeSession } from '../scheduler/node-session.js';

/** How much the newest step counts. Collecting and propagating take turns and differ; all members do the same. */
const NEWEST_SHARE = 0.5;

/** How long members take for a group, by the steps they have done. */
export class GroupPace {
  private readonly seconds = new WeakMap<NodeSession, number>();

  /** A member has done a step on so many groups. */
  add(member: NodeSession, groups: number, seconds: number): void {
    const newest = seconds / groups;
    const before = this.seconds.get(member) ?? newest;
    this.seconds.set(member, before + NEWEST_SHARE * (newest - before));
  }

  /**
   * Seconds a group takes each of the members in a step. One that has done none yet is taken to be as fast as the others, or, where nodes told how
   * fast their products are, as that lets expect. Undefined when none has done a step.
   */
  of(members: readonly NodeSession[]): readonly number[] | undefined {
    const measured = members.flatMap((member) => {
      const seconds = this.seconds.get(member);
      return seconds === undefined ? [] : [{ seconds, speed: member.productSpeed }];
    });
    if (measured.length === 0) return undefined;
    return members.map((member) => {
      const estimates = measured.map(({ seconds, speed }) => {
        const isKnown = speed > 0 && member.productSpeed > 0;
        return isKnown ? (seconds * speed) / member.productSpeed : seconds;
      });
      return this.seconds.get(member) ?? estimates.reduce((sum, estimate) => sum + estimate) / estimates.length;
    });
  }
}
