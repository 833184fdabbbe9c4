import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { runAhead } from './run-ahead.js';

/** Makes ten times the item, and notes when it begins and ends. */
function recorder(failing?: number) {
  const events: string[] = [];
  const make = async (item: number): Promise<number> => {
    events.push(`begin ${item}`);
    await setImmediate();
    events.push(`end ${item}`);
    if (item === failing) throw new Error(`no ${item}`);
    return 10 * item;
  };
  return { events, make };
}

describe('runAhead', () => {
  test('has two under way while one is looked at, never more', async () => {
    const { events, make } = recorder();
    const results: number[] = [];
    for await (const [item, result] of runAhead([1, 2, 3, 4], make)) {
      events.push(`look at ${item}`);
      await setImmediate();
      await setImmediate();
      events.push(`looked at ${item}`);
      results.push(result);
    }
    expect(results).toEqual([10, 20, 30, 40]);
    expect(events.slice(0, 6)).toEqual(['begin 1', 'begin 2', 'end 1', 'begin 3', 'look at 1', 'end 2']);
    const looks = events.filter((event) => event.startsWith('look'));
    expect(looks).toEqual([1, 2, 3, 4].flatMap((item) => [`look at ${item}`, `looked at ${item}`]));
    let underWay = 0;
    for (const event of events) {
      if (event.startsWith('begin')) underWay++;
      if (event.startsWith('end')) underWay--;
      expect(underWay).toBeLessThanOrEqual(2);
    }
  });

  test('makes nothing of nothing', async () => {
    const { events, make } = recorder();
    for await (const result of runAhead([], make)) expect(result).toBeUndefined();
    expect(events).toEqual([]);
  });

  test('fails where the one that cannot be made would have its turn', async () => {
    const { make } = recorder(2);
    const results: number[] = [];
    const reading = async (): Promise<void> => {
      for await (const [, result] of runAhead([1, 2, 3], make)) results.push(result);
    };
    await expect(reading()).rejects.toThrow('no 2');
    expect(results).toEqual([10]);
  });

  test('waits for what is under way when the reader stops, whether it can be made or not', async () => {
    const { events, make } = recorder(2);
    for await (const [item] of runAhead([1, 2, 3], make)) {
      events.push(`stop at ${item}`);
      break;
    }
    expect(events).toEqual(['begin 1', 'begin 2', 'end 1', 'begin 3', 'stop at 1', 'end 2', 'end 3']);
  });
});
