/** A node, as far as its share of the calibration groups goes. */
export interface GroupHolder {
  readonly groups: number;
  /** What a step takes it for each group. */
  readonly secondsPerGroup: number;
  /** The most groups it can keep. */
  readonly capacity: number;
}

export interface GroupMoves {
  /** Positions of the holders, one entry for each group that moves. */
  readonly moves: readonly { readonly from: number; readonly to: number }[];
  /** By how much a step is over sooner. */
  readonly secondsSaved: number;
}

/**
 * What to move so that the holders of all groups end a step as near together as they can: one group after the other goes from the holder that would
 * end last to the one that would have done it first, as long as that is sooner.
 */
export function balanceGroups(holders: readonly GroupHolder[]): GroupMoves {
  const counts = holders.map(({ groups }) => groups);
  const moves: { from: number; to: number }[] = [];
  const secondsOf = (holder: number, groups: number): number => groups * holders[holder]!.secondsPerGroup;
  const ends = (): number[] => counts.map((groups, holder) => secondsOf(holder, groups));
  const before = Math.max(0, ...ends());
  for (;;) {
    const last = indexOfLeast(ends().map((seconds) => -seconds));
    const receivers = counts.map((groups, holder) =>
      holder === last || groups >= holders[holder]!.capacity ? Infinity : secondsOf(holder, groups + 1),
    );
    const to = indexOfLeast(receivers);
    if (to === -1 || counts[last] === 0 || !(receivers[to]! < secondsOf(last, counts[last]!))) break;
    counts[last]! -= 1;
    counts[to]! += 1;
    moves.push({ from: last, to });
  }
  return { moves, secondsSaved: before - Math.max(0, ...ends()) };
}

/** The first of equals; -1 when there are no values. */
function indexOfLeast(values: readonly number[]): number {
  return values.indexOf(Math.min(...values));
}
