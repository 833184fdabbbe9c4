import { expect, test } from '@jest/globals';
import { WorkQueue } from './work-queue.js';

/** Work that begins in the order of `begun` and ends when the test says so. */
function heldWork(workers: number) {
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const queue = new WorkQueue({
    workers,
    process: (key) => {
      begun.push(key);
      return new Promise((resolve) => ends.push(() => resolve(undefined)));
    },
    onProblem: (_key, error) => {
      throw error;
    },
  });
  const endNext = async (): Promise<void> => {
    ends.shift()?.();
    await new Promise(setImmediate);
  };
  return { queue, begun, endNext };
}

test('a key is worked on by one worker at a time, and again where it was added meanwhile', async () => {
  const { queue, begun, endNext } = heldWork(2);
  for (const key of ['a', 'a', 'a', 'b', 'c']) queue.add(key);
  expect(begun).toEqual(['a', 'b']);
  await endNext();
  expect(begun).toEqual(['a', 'b', 'a']);
  await endNext();
  expect(begun).toEqual(['a', 'b', 'a', 'c']);
  const stopped = queue.stop();
  queue.add('d');
  await endNext();
  await endNext();
  await stopped;
  expect(begun).toEqual(['a', 'b', 'a', 'c']);
});

test('a key whose work failed is tried again later, and one that asks for it too', async () => {
  let times = 0;
  const problems: unknown[] = [];
  await new Promise<void>((resolve) => {
    const queue = new WorkQueue({
      workers: 1,
      process: () => {
        times += 1;
        if (times === 1) return Promise.reject(new Error('once'));
        if (times === 3) resolve(queue.stop());
        return Promise.resolve(1);
      },
      onProblem: (key, error) => problems.push([key, (error as Error).message]),
    });
    queue.add('a');
  });
  expect(times).toBe(3);
  expect(problems).toEqual([['a', 'once']]);
});
