import { readdir } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { WorkerThreads } from './worker-threads.js';

const MODULE = new URL('../../dist/checkpoint/scan-parts.js', import.meta.url);

test('threads that are closed while they start leave no file open, and none of themselves', async () => {
  const held = async (): Promise<object> => ({
    threads: (await readdir('/proc/self/task')).length,
    descriptors: (await readdir('/proc/self/fd')).length,
  });
  const closeAtOnce = async (): Promise<void> => {
    const threads = new WorkerThreads<readonly object[], unknown>(MODULE, 3);
    // One has a task, and is the only one that is waited for.
    await threads.run([]);
    await Promise.all([threads.close(), threads.close()]);
  };
  // The first loads what this process keeps.
  await closeAtOnce();
  const before = await held();
  for (let round = 0; round < 4; ++round) await closeAtOnce();
  expect(await held()).toEqual(before);
});
