import { mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { PruningClient } from '@secateur/client';
import { writeTrace } from './run-job.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'run-job-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** A service that is gone when it is asked for the trace. */
const gone = {
  getTrace: () => ({
    [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(new Error('gone')) }),
  }),
} as unknown as PruningClient;

test('half a trace is removed, but not what is no file of ours, such as a device', async () => {
  await symlink('/dev/null', join(folder, 'device'));
  // A file that is still being opened when the service is gone must not stay behind either, which a single one may do or not.
  const names = ['device', ...Array.from({ length: 100 }, (_, index) => `${index}.json`)];
  for (const name of names) await expect(writeTrace(gone, 'job', join(folder, name))).rejects.toThrow('gone');
  expect(await readdir(folder)).toEqual(['device']);
});
