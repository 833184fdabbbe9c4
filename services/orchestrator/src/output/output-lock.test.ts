import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { OutputLock } from './output-lock.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'output-lock-'));
});
afterEach(() => rm(folder, { recursive: true }));

const writeOwner = (pid: number, host = hostname()): Promise<void> =>
  writeFile(join(folder, OutputLock.file), JSON.stringify({ host, pid }));

test('a folder that another process of this host writes is refused, and taken over once that process is gone', async () => {
  const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  await writeOwner(other.pid ?? -1);
  await expect(OutputLock.take(folder)).rejects.toThrow(new RegExp(`written by process ${other.pid}`));
  other.kill('SIGKILL');
  await once(other, 'exit');
  const lock = await OutputLock.take(folder);
  await lock.release();
  expect(await readdir(folder)).toEqual([]);
});

test('what an attempt of this process, another host or a broken file left keeps nobody out', async () => {
  await writeOwner(process.pid);
  await (await OutputLock.take(folder)).release();
  await writeOwner(1, 'another-host');
  await (await OutputLock.take(folder)).release();
  await writeFile(join(folder, OutputLock.file), 'broken');
  await (await OutputLock.take(folder)).release();
});
