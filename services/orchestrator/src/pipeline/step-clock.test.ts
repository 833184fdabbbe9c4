import { expect, test } from '@jest/globals';
import { StepClock } from './step-clock.js';

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

test('counts the time in which a step is under way once, however many of its parts run', async () => {
  let now = 0;
  const clock = new StepClock(() => now);
  const [first, second, other] = [deferred(), deferred(), deferred()];
  const writes = [clock.measure('write', () => first.promise)];
  const computed = clock.measure('propagate', () => other.promise);
  now = 1_000;
  writes.push(clock.measure('write', () => second.promise));
  now = 3_000;
  first.resolve();
  await writes[0];
  now = 4_000;
  second.resolve();
  other.resolve();
  await Promise.all([...writes, computed]);
  now = 9_000;
  await clock.measure('write', async () => {
    now = 9_500;
  });
  expect(clock.seconds()).toEqual({ write: 4.5, propagate: 4 });
});

test('counts a step that fails', async () => {
  let now = 0;
  const clock = new StepClock(() => now);
  const failed = clock.measure('write', async () => {
    now = 2_000;
    throw new Error('full');
  });
  await expect(failed).rejects.toThrow('full');
  expect(clock.seconds()).toEqual({ write: 2 });
});
