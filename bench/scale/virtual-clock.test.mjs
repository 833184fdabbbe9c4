import { describe, expect, test } from '@jest/globals';
import { VirtualClock } from './virtual-clock.mjs';

describe('VirtualClock', () => {
  test('lets events happen in the order of their times, and of one time in the order they were scheduled', async () => {
    const clock = new VirtualClock();
    /** @type {[string, number][]} */
    const happened = [];
    const tell = (/** @type {string} */ name) => clock.sleep(name.length).then(() => void happened.push([name, clock.now]));
    await clock.run(async () => {
      await Promise.all(['ccc', 'a', 'bb', 'AAA', 'dddd'].map(tell));
    });
    expect(happened).toEqual([
      ['a', 1],
      ['bb', 2],
      ['ccc', 3],
      ['AAA', 3],
      ['dddd', 4],
    ]);
  });

  test('stands still while there is something to do', async () => {
    const clock = new VirtualClock();
    await clock.run(async () => {
      const later = clock.sleep(1).then(() => 'later');
      for (let turn = 0; turn < 1000; turn++) await Promise.resolve();
      expect(clock.now).toBe(0);
      expect(await later).toBe('later');
      await clock.sleep(2);
    });
    expect(clock.now).toBe(3);
  });

  test('tells of every leap before it is made', async () => {
    const clock = new VirtualClock();
    /** @type {[number, number][]} */
    const leaps = [];
    clock.onLeap((seconds) => leaps.push([clock.now, seconds]));
    await clock.run(() => Promise.all([clock.sleep(1), clock.sleep(1), clock.sleep(4)]));
    expect(leaps).toEqual([
      [0, 1],
      [1, 3],
    ]);
  });

  test('fails with the work, and when the work waits for what never happens', async () => {
    await expect(new VirtualClock().run(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    await expect(new VirtualClock().run(() => new Promise(() => undefined))).rejects.toThrow('waits for something that never happens');
    expect(() => new VirtualClock().after(-1, () => undefined)).toThrow(RangeError);
  });
});
