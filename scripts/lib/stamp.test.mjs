import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { unlessStamped } from './stamp.mjs';

/** @type {string} */
let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'secateur-stamp-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

test('work is done once for each fingerprint', async () => {
  const file = join(folder, 'build', 'stamp');
  let runs = 0;
  const work = () => {
    runs += 1;
    return Promise.resolve();
  };
  expect(await unlessStamped(file, 'a', work)).toBe(true);
  expect(await unlessStamped(file, 'a', work)).toBe(false);
  expect(await unlessStamped(file, 'b', work)).toBe(true);
  expect(runs).toBe(2);
});

test('work that failed is done again, also when it had been finished before', async () => {
  const file = join(folder, 'stamp');
  await unlessStamped(file, 'a', () => Promise.resolve());
  await expect(unlessStamped(file, 'b', () => Promise.reject(new Error('no space left')))).rejects.toThrow('no space left');
  expect(await unlessStamped(file, 'a', () => Promise.resolve())).toBe(true);
});
