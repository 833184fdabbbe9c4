import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { balanceGroups, type GroupHolder } from './balance-groups.js';

const holder = (groups: number, secondsPerGroup: number, capacity = 1000): GroupHolder => ({ groups, secondsPerGroup, capacity });

function countsAfter(holders: readonly GroupHolder[]): number[] {
  const counts = holders.map(({ groups }) => groups);
  for (const { from, to } of balanceGroups(holders).moves) {
    counts[from]! -= 1;
    counts[to]! += 1;
  }
  return counts;
}

describe('balanceGroups', () => {
  test('leaves holders alone that end together', () => {
    expect(balanceGroups([holder(4, 1), holder(4, 1)])).toEqual({ moves: [], secondsSaved: 0 });
    expect(balanceGroups([holder(5, 1), holder(4, 1)])).toEqual({ moves: [], secondsSaved: 0 });
    expect(balanceGroups([holder(3, 1)])).toEqual({ moves: [], secondsSaved: 0 });
    expect(balanceGroups([])).toEqual({ moves: [], secondsSaved: 0 });
  });

  test('gives one that has just come its share', () => {
    expect(countsAfter([holder(6, 1), holder(6, 1), holder(0, 1)])).toEqual([4, 4, 4]);
  });

  test('leaves a slow one as many as it does in the time of the others', () => {
    expect(countsAfter([holder(8, 1), holder(8, 4)])).toEqual([13, 3]);
    expect(balanceGroups([holder(8, 1), holder(8, 4)]).secondsSaved).toBe(32 - 13);
  });

  test('gives none more than it can keep', () => {
    expect(countsAfter([holder(9, 1), holder(1, 1, 3), holder(0, 1, 0)])).toEqual([7, 3, 0]);
  });

  test('keeps all groups, saves what it says and moves none for nothing', () => {
    const holders = fc.array(fc.record({ groups: fc.nat(20), secondsPerGroup: fc.integer({ min: 1, max: 50 }), capacity: fc.nat(40) }), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(holders, (given) => {
        const { moves, secondsSaved } = balanceGroups(given);
        const counts = countsAfter(given);
        const endOf = (groups: readonly number[]): number => Math.max(...groups.map((count, slot) => count * given[slot]!.secondsPerGroup));
        const before = given.map(({ groups }) => groups);
        expect(counts.reduce((sum, count) => sum + count)).toBe(before.reduce((sum, count) => sum + count));
        expect(secondsSaved).toBe(endOf(before) - endOf(counts));
        for (const [slot, count] of counts.entries()) {
          expect(count).toBeGreaterThanOrEqual(0);
          if (count > before[slot]!) expect(count).toBeLessThanOrEqual(given[slot]!.capacity);
          // None gives and takes.
          expect(moves.some(({ from }) => from === slot) && moves.some(({ to }) => to === slot)).toBe(false);
        }
      }),
    );
  });
});
