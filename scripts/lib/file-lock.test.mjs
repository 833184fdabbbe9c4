import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { withFileLock } from './file-lock.mjs';

/** @type {string} */
let folder;
/** @type {string} */
let file;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'secateur-lock-'));
  file = join(folder, 'cache', 'setup.lock');
});
afterEach(() => rmSync(folder, { recursive: true }));

test('the lock is held during the work and gone after it, also when the work fails', async () => {
  expect(await withFileLock(file, {}, () => Promise.resolve(existsSync(file)))).toBe(true);
  await expect(withFileLock(file, {}, () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
  expect(existsSync(file)).toBe(false);
});

test('processes take turns', async () => {
  const log = join(folder, 'log');
  const program = `
    import { appendFileSync } from 'node:fs';
    import { setImmediate } from 'node:timers/promises';
    import { withFileLock } from ${JSON.stringify(new URL('file-lock.mjs', import.meta.url).href)};
    await withFileLock(${JSON.stringify(file)}, {}, async () => {
      appendFileSync(${JSON.stringify(log)}, 'in ');
      for (let turn = 0; turn < 1000; turn += 1) await setImmediate();
      appendFileSync(${JSON.stringify(log)}, 'out ');
    });`;
  const children = [1, 2, 3].map(() => spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: 'inherit' }));
  const codes = await Promise.all(children.map(async (child) => /** @type {unknown[]} */ (await once(child, 'exit'))[0]));
  expect(codes).toEqual([0, 0, 0]);
  expect(readFileSync(log, 'utf8')).toBe('in out in out in out ');
});

test('the lock of a process that has ended is taken over', async () => {
  await withFileLock(file, {}, () => Promise.resolve());
  const { pid } = spawnSync(process.execPath, ['--eval', '']);
  writeFileSync(file, String(pid));
  expect(await withFileLock(file, {}, () => Promise.resolve('done'))).toBe('done');
});

test('a lock that nobody has touched for long is taken over, even if its number now belongs to another process', async () => {
  await withFileLock(file, {}, () => Promise.resolve());
  writeFileSync(file, String(process.ppid));
  const minuteAgo = new Date(Date.now() - 60_000);
  utimesSync(file, minuteAgo, minuteAgo);
  expect(await withFileLock(file, {}, () => Promise.resolve('done'))).toBe('done');
});
