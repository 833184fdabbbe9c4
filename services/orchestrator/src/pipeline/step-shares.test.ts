import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { StepShares } from './step-shares.js';

const never = new AbortController().signal;
const free = { secondsToMove: 0, most: Infinity };

interface Member {
  readonly name: string;
}
const fast: Member = { name: 'fast' };
const slow: Member = { name: 'slow' };

/** Shares of groups that are numbers, by a clock that is set by hand. */
class Bench {
  seconds = 0;
  readonly shares = new StepShares<Member, number>(() => 1000 * this.seconds);

  /** A member is given what comes next and does all of it. */
  run(member: Member, secondsPerGroup: number): readonly number[] {
    const given = this.shares.give(member);
    for (const _ of given) {
      this.seconds += secondsPerGroup;
      this.shares.finish(member);
    }
    return given;
  }
}

const groups = (count: number): number[] => [...new Array(count).keys()];

describe('a member is given', () => {
  test('its whole share when nobody knows how long that takes', () => {
    const { shares } = new Bench();
    shares.open(slow, groups(5), undefined);
    expect(shares.give(slow)).toEqual([0, 1, 2, 3, 4]);
    expect(shares.give(slow)).toEqual([]);
  });

  test('a second of work at a time, and one group at least', () => {
    const { shares } = new Bench();
    shares.open(fast, groups(5), 0.3);
    shares.open(slow, groups(2), 7);
    expect([shares.give(fast), shares.give(slow)]).toEqual([[0, 1, 2], [0]]);
  });

  test('less when it turns out slower than it was', () => {
    const bench = new Bench();
    bench.shares.open(slow, groups(8), 0.25);
    expect(bench.run(slow, 0.5)).toHaveLength(4);
    expect(bench.run(slow, 0.5)).toHaveLength(2);
  });
});

describe('one that is done', () => {
  test('takes over so many groups that both end at about the same time', async () => {
    const bench = new Bench();
    const { shares } = bench;
    shares.open(fast, groups(1), 1);
    shares.open(slow, groups(13), 4);
    shares.give(slow);
    bench.run(fast, 1);
    // 13 groups are 52 seconds for the slow one; 10 of them are 10 for the fast one, which leaves 12.
    expect(await shares.takeOver(fast, free, never)).toEqual({ from: slow, groups: groups(13).slice(-10) });
    expect(shares.give(slow)).toEqual([1]);
    expect(shares.give(slow)).toEqual([2]);
    expect(shares.give(slow)).toEqual([]);
  });

  test('weighs what it takes to move them, and has room for no more than it says', async () => {
    const bench = new Bench();
    bench.shares.open(fast, groups(1), 1);
    bench.shares.open(slow, groups(13), 4);
    bench.run(fast, 1);
    const costly = await bench.shares.takeOver(fast, { secondsToMove: 8, most: Infinity }, never);
    expect(costly?.groups).toHaveLength(4);
    bench.shares.putBack(costly!);
    expect((await bench.shares.takeOver(fast, { secondsToMove: 0, most: 3 }, never))?.groups).toHaveLength(3);
    expect(await bench.shares.takeOver(fast, { secondsToMove: 0, most: 0 }, never)).toBeUndefined();
  });

  test('notices that another is at a group for much longer than expected', async () => {
    const bench = new Bench();
    bench.shares.open(fast, groups(1), 0.3);
    bench.shares.open(slow, groups(5), 0.3);
    bench.shares.give(slow);
    bench.run(fast, 0.3);
    let taken: readonly number[] | undefined;
    const taking = bench.shares.takeOver(fast, free, never).then((over) => {
      taken = over?.groups;
    });
    await new Promise((resolve) => setImmediate(resolve));
    // By what was known it would have ended within the second.
    expect(taken).toBeUndefined();
    bench.seconds += 30;
    await taking;
    expect(taken).toEqual([3, 4]);
  });

  test('takes nothing when nothing waits, and does not stay when the others end', async () => {
    const bench = new Bench();
    bench.shares.open(fast, [], 1);
    bench.shares.open(slow, groups(2), 0.9);
    const taking = bench.shares.takeOver(fast, free, never);
    bench.run(slow, 0.9);
    bench.run(slow, 0.9);
    expect(await taking).toBeUndefined();
    expect(bench.shares.close(slow)).toEqual({ groups: 2, seconds: expect.closeTo(1.8) });
  });

  test('takes nothing as long as nobody knows how fast it is, or when all is called off', async () => {
    const bench = new Bench();
    bench.shares.open(fast, [], undefined);
    bench.shares.open(slow, groups(50), 9);
    expect(await bench.shares.takeOver(fast, free, never)).toBeUndefined();
    bench.shares.close(fast);
    bench.shares.open(fast, [], 1);
    expect(await bench.shares.takeOver(fast, free, AbortSignal.abort())).toBeUndefined();
  });

  test('waits for another that has not begun, and no longer when that has ended', async () => {
    const bench = new Bench();
    for (const member of [fast, slow]) bench.shares.enter(member);
    bench.shares.open(fast, [], 1);
    const taking = bench.shares.takeOver(fast, free, never);
    bench.shares.open(slow, groups(9), 9);
    expect((await taking)?.groups).not.toHaveLength(0);
    bench.shares.close(slow);
    bench.shares.enter(slow);
    const inVain = bench.shares.takeOver(fast, free, never);
    expect(bench.shares.close(slow)).toEqual({ groups: 0, seconds: 0 });
    expect(await inVain).toBeUndefined();
  });

  test('leaves what cannot be moved to the other, while that is there', async () => {
    const bench = new Bench();
    bench.shares.open(fast, [], 1);
    bench.shares.open(slow, groups(9), 9);
    const taken = await bench.shares.takeOver(fast, free, never);
    bench.shares.putBack(taken!);
    bench.shares.close(slow);
    bench.shares.putBack(taken!);
    expect(await bench.shares.takeOver(fast, free, never)).toBeUndefined();
  });
});

test('every group is given out once, whoever takes it over, and no step is longer for it', async () => {
  const speeds = fc.array(fc.record({ secondsPerGroup: fc.double({ min: 0.1, max: 20, noNaN: true }), count: fc.nat(12) }), {
    minLength: 1,
    maxLength: 5,
  });
  await fc.assert(
    fc.asyncProperty(speeds, async (crew) => {
      let seconds = 0;
      const shares = new StepShares<Member, number>(() => 1000 * seconds);
      let first = 0;
      const members = crew.map(({ secondsPerGroup, count }, place) => {
        const member = { name: `${place}` };
        const own = groups(count).map((group) => first + group);
        first += count;
        shares.open(member, own, secondsPerGroup);
        return { member, secondsPerGroup, running: [] as number[], doneAt: Infinity, isOver: false };
      });
      const done: number[] = [];
      for (let turns = 0; turns < 1000; turns++) {
        for (const worker of members) {
          if (worker.isOver || worker.running.length > 0) continue;
          worker.running = [...shares.give(worker.member)];
          if (worker.running.length === 0) {
            // What would be waited for comes at one of the next turns.
            const stop = new AbortController();
            const taking = shares.takeOver(worker.member, free, stop.signal);
            stop.abort();
            const taken = await taking;
            if (taken !== undefined) shares.add(worker.member, taken.groups);
            worker.running = [...shares.give(worker.member)];
          }
          if (worker.running.length > 0) worker.doneAt = seconds + worker.secondsPerGroup;
        }
        const next = members.filter(({ running }) => running.length > 0).sort((left, right) => left.doneAt - right.doneAt)[0];
        if (next === undefined) break;
        seconds = next.doneAt;
        shares.finish(next.member);
        done.push(next.running.shift()!);
        next.doneAt = seconds + next.secondsPerGroup;
      }
      expect(done.sort((left, right) => left - right)).toEqual(groups(first));
      const alone = Math.max(...crew.map(({ secondsPerGroup, count }) => secondsPerGroup * count));
      expect(seconds).toBeLessThanOrEqual(alone + 1e-6);
    }),
  );
});
