import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { sideBySide } from './side-by-side.js';

const none = new AbortController().signal;

test('gives what all gave, in their order', async () => {
  expect(await sideBySide([async () => delay(5, 'slow'), async () => 2], none)).toEqual(['slow', 2]);
});

test('the first that fails stops the others, and is told of when they have ended', async () => {
  let ended = false;
  const failed = sideBySide(
    [
      async (signal) => {
        await delay(60_000, undefined, { signal }).catch(() => undefined);
        await delay(5);
        ended = true;
        throw new Error('stopped');
      },
      async () => {
        await delay(1);
        throw new Error('first');
      },
    ],
    none,
  );
  await expect(failed).rejects.toThrow('first');
  expect(ended).toBe(true);
});

test('all are stopped from outside', async () => {
  const controller = new AbortController();
  const stopped = sideBySide([async (signal) => delay(60_000, undefined, { signal })], controller.signal);
  controller.abort();
  await expect(stopped).rejects.toThrow('aborted');
});
