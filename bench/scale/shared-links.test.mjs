import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { makeLink, SharedLinks } from './shared-links.mjs';
import { VirtualClock } from './virtual-clock.mjs';

/** @typedef {{ begin?: number, amount: number, uses: [import('./shared-links.mjs').Link, number][] }} Transfer */

/** When each transfer has ended. @param {readonly Transfer[]} transfers @returns {Promise<number[]>} */
async function endsOf(transfers) {
  const clock = new VirtualClock();
  const links = new SharedLinks(clock);
  return clock.run(() =>
    Promise.all(
      transfers.map(async ({ begin = 0, amount, uses }) => {
        await clock.sleep(begin);
        await links.transfer(amount, uses);
        return clock.now;
      }),
    ),
  );
}

describe('SharedLinks', () => {
  test('gives a transfer what the slowest of its links has', async () => {
    const out = makeLink('out', 10);
    const into = makeLink('in', 4);
    const ends = await endsOf([
      {
        amount: 20,
        uses: [
          [out, 1],
          [into, 1],
        ],
      },
    ]);
    expect(ends).toEqual([5]);
    expect([out.used, into.used]).toEqual([20, 20]);
  });

  test('shares a link evenly, and anew when a transfer begins or ends', async () => {
    const out = makeLink('out', 10);
    // 10 alone, then 5 each until the second ends, then 10 again.
    const ends = await endsOf([
      { amount: 40, uses: [[out, 1]] },
      { begin: 1, amount: 10, uses: [[out, 1]] },
    ]);
    expect(ends[1]).toBeCloseTo(3, 9);
    expect(ends[0]).toBeCloseTo(5, 9);
  });

  test('gives what one cannot take to the others', async () => {
    const out = makeLink('out', 10);
    const slow = makeLink('slow', 2);
    const ends = await endsOf([
      {
        amount: 4,
        uses: [
          [out, 1],
          [slow, 1],
        ],
      },
      { amount: 16, uses: [[out, 1]] },
    ]);
    expect(ends[0]).toBeCloseTo(2, 9);
    expect(ends[1]).toBeCloseTo(2, 9);
  });

  test('counts what a unit takes of each link', async () => {
    const thread = makeLink('thread', 1);
    const out = makeLink('out', 100);
    const ends = await endsOf([
      {
        amount: 100,
        uses: [
          [thread, 0.05],
          [out, 1],
        ],
      },
    ]);
    expect(ends[0]).toBeCloseTo(5, 9);
    expect(thread.used).toBeCloseTo(5, 9);
  });

  test('ends transfers late in a long job too, where little time is less than the clock can tell', async () => {
    const out = makeLink('out', 3e9);
    const ends = await endsOf([
      { begin: 1e7, amount: 1, uses: [[out, 1]] },
      { begin: 1e7, amount: 1e6 / 3, uses: [[out, 1]] },
    ]);
    expect(ends[1]).toBeGreaterThanOrEqual(1e7);
  });

  test('never gives more than a link has, and loses nothing', async () => {
    const transfer = fc.record({
      begin: fc.integer({ min: 0, max: 3 }),
      amount: fc.integer({ min: 1, max: 50 }),
      links: fc.uniqueArray(fc.integer({ min: 0, max: 2 }), { minLength: 1 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(transfer, { minLength: 1, maxLength: 8 }), async (transfers) => {
        const links = [1, 3, 10].map((perSecond, index) => makeLink(`link ${index}`, perSecond));
        const ends = await endsOf(
          transfers.map(({ begin, amount, links: used }) => ({
            begin,
            amount,
            uses: links.filter((_, index) => used.includes(index)).map((link) => [link, 1]),
          })),
        );
        for (const [index, link] of links.entries()) {
          const passed = transfers.filter(({ links: used }) => used.includes(index)).reduce((sum, { amount }) => sum + amount, 0);
          expect(link.used).toBeCloseTo(passed, 6);
          expect(link.used).toBeLessThanOrEqual(link.perSecond * Math.max(...ends) + 1e-6);
        }
      }),
      { numRuns: 50 },
    );
  });
});
