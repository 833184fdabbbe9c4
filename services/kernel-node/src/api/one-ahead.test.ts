import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { oneAhead } from './one-ahead.js';

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

describe('oneAhead', () => {
  test('makes the next while one is looked at, never more', async () => {
    const { events, make } = recorder();
    const results: number[] = [];
    for await (const [item, result] of oneAhead([1, 2, 3], make)) {
      events.push(`look at ${item}`);
      await setImmediate();
      await setImmediate();
      events.push(`looked at ${item}`);
      results.push(result);
    }
    expect(results).toEqual([10, 20, 30]);
    expect(events).toEqual([
      ...['begin 1', 'end 1', 'begin 2', 'look at 1', 'end 2', 'looked at 1'],
      ...['begin 3', 'look at 2', 'end 3', 'looked at 2', 'look at 3', 'looked at 3'],
    ]);
  });

  test('makes nothing of nothing', async () => {
    const { events, make } = recorder();
    for await (const result of oneAhead([], make)) expect(result).toBeUndefined();
    expect(events).toEqual([]);
  });

  test('fails where the one that cannot be made would have its turn', async () => {
    const { make } = recorder(2);
    const results: number[] = [];
    const reading = async (): Promise<void> => {
      for await (const [, result] of oneAhead([1, 2, 3], make)) results.push(result);
    };
    await expect(reading()).rejects.toThrow('no 2');
    expect(results).toEqual([10]);
  });

  test('waits for what is under way when the reader stops, whether it can be made or not', async () => {
    const { events, make } = recorder(2);
    for await (const [item] of oneAhead([1, 2, 3], make)) {
      events.push(`stop at ${item}`);
      break;
    }
    expect(events).toEqual(['begin 1', 'end 1', 'begin 2', 'stop at 1', 'end 2']);
  });
});
