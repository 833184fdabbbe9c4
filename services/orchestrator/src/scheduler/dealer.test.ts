import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Dealer } from './dealer.js';

const none = new AbortController().signal;
const fast = { name: 'fast' };
const slow = { name: 'slow' };

describe('parts', () => {
  test('are given out in order, and are over when all are done', async () => {
    const dealer = new Dealer(['a', 'b'], undefined);
    const [first, second] = [await dealer.take(fast, none), await dealer.take(slow, none)];
    expect([first?.part, second?.part]).toEqual(['a', 'b']);
    expect(dealer.finish(first!, fast)).toBe(true);
    expect(dealer.finished).toBe(false);
    expect(await dealer.take(fast, none)).toBeUndefined();
    expect(dealer.finish(second!, slow)).toBe(true);
    expect(dealer.finished).toBe(true);
  });

  test('that were given up are the next to be taken', async () => {
    const dealer = new Dealer(['a', 'b', 'c'], undefined);
    const first = await dealer.take(slow, none);
    dealer.giveUp(first!, slow);
    expect((await dealer.take(fast, none))?.part).toBe('a');
    expect((await dealer.take(fast, none))?.part).toBe('b');
  });

  test('that take long are begun again by one that is free, and the first to be done ends the other', async () => {
    const dealer = new Dealer(['a', 'b'], () => 1, 50);
    const [stuck, quick] = [await dealer.take(slow, none), await dealer.take(fast, none)];
    await delay(5);
    expect(dealer.finish(quick!, fast)).toBe(true);
    const waitedFrom = performance.now();
    const again = await dealer.take(fast, none);
    expect(again?.part).toBe('a');
    expect(performance.now() - waitedFrom).toBeGreaterThan(30);
    // Not by a third.
    const third = dealer.take({ name: 'third' }, none);
    expect(stuck!.signal.aborted).toBe(false);
    expect(dealer.finish(again!, fast)).toBe(true);
    expect(await third).toBeUndefined();
    expect(stuck!.signal.aborted).toBe(true);
    expect(again!.signal.aborted).toBe(false);
    expect(dealer.finish(stuck!, slow)).toBe(false);
    expect(dealer.finished).toBe(true);
  });

  test('are given to a worker that is at work already only while there is one for each worker', async () => {
    const dealer = new Dealer(['a', 'b', 'c', 'd'], () => 1, 60_000);
    const take = (worker: object) => dealer.take(worker, none, 2);
    const [first, second] = [await take(fast), await take(fast)];
    expect([first?.part, second?.part]).toEqual(['a', 'b']);
    const third = await take(slow);
    expect(third?.part).toBe('c');
    expect(await take(slow)).toBeUndefined();
    expect(dealer.finish(second!, fast)).toBe(true);
    expect(await take(fast)).toBeUndefined();
    expect(dealer.finish(first!, fast)).toBe(true);
    const fourth = await take(fast);
    expect(fourth?.part).toBe('d');
    // What is given up is there for others, also for one at work.
    dealer.giveUp(third!, slow);
    expect((await dealer.take(fast, none, 1))?.part).toBe('c');
  });

  test('that one worker has begun two of count no longer than it worked on each', async () => {
    const dealer = new Dealer(['stuck', 'a', 'b'], () => 1, 1);
    await dealer.take(slow, none);
    const [first, second] = [await dealer.take(fast, none), await dealer.take(fast, none)];
    for (const part of [first, second]) {
      await delay(300);
      dealer.finish(part!, fast);
    }
    // It is late after one and a half times 300 ms, which is over; of twice as much, as long would be left.
    const waitedFrom = performance.now();
    expect((await dealer.take(fast, none))?.part).toBe('stuck');
    expect(performance.now() - waitedFrom).toBeLessThan(200);
  });

  test('are waited for by nobody once they are done', async () => {
    const dealer = new Dealer(['a', 'b'], () => 1, 60_000);
    const [slowly, quick] = [await dealer.take(slow, none), await dealer.take(fast, none)];
    dealer.finish(quick!, fast);
    const waiting = dealer.take(fast, none);
    dealer.finish(slowly!, slow);
    expect(await waiting).toBeUndefined();
  });

  test('are waited for no longer than the work goes on', async () => {
    const dealer = new Dealer(['a', 'b'], () => 1, 60_000);
    await dealer.take(slow, none);
    const quick = await dealer.take(fast, none);
    dealer.finish(quick!, fast);
    const end = new AbortController();
    const waiting = dealer.take(fast, end.signal);
    end.abort();
    expect(await waiting).toBeUndefined();
  });

  test('that a lost worker had begun go to one that waits', async () => {
    const dealer = new Dealer(['a', 'b'], () => 1, 60_000);
    const [lost, quick] = [await dealer.take(slow, none), await dealer.take(fast, none)];
    dealer.finish(quick!, fast);
    const waiting = dealer.take(fast, none);
    dealer.giveUp(lost!, slow);
    expect((await waiting)?.part).toBe('a');
  });

  test('are each done once, whoever is slow or fails', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.record({ ms: fc.nat(4), fails: fc.boolean() }), { minLength: 1, maxLength: 4 }),
        async (count, workers) => {
          const parts = Array.from({ length: count }, (_, index) => index);
          const dealer = new Dealer(parts, () => 1, 2);
          const done: number[] = [];
          const run = async ({ ms, fails }: { ms: number; fails: boolean }): Promise<void> => {
            const worker = {};
            const take = () => dealer.take(worker, none, workers.length);
            const workThrough = async (): Promise<void> => {
              for (let taken = await take(); taken !== undefined; taken = await take()) {
                await delay(ms);
                if (fails) {
                  dealer.giveUp(taken, worker);
                  return;
                }
                if (dealer.finish(taken, worker)) done.push(taken.part);
              }
            };
            await Promise.all([workThrough(), workThrough()]);
          };
          // The last never fails.
          await Promise.all([...workers.slice(1).map(run), run({ ms: 1, fails: false })]);
          while (!dealer.finished) await run({ ms: 0, fails: false });
          expect(done.sort((left, right) => left - right)).toEqual(parts);
        },
      ),
      { numRuns: 30 },
    ));
});
