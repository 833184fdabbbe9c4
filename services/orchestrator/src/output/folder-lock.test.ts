import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { FolderLock, type WritingLease } from './folder-lock.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'folder-lock-'));
});
afterEach(() => rm(folder, { recursive: true }));

interface Written {
  readonly pid: number;
  readonly host?: string;
  readonly lease?: WritingLease;
}

const writeOwner = ({ pid, host = hostname(), lease }: Written): Promise<void> =>
  writeFile(join(folder, FolderLock.file), JSON.stringify({ id: 'other', host, pid, lease }));

const take = (lease?: WritingLease): Promise<FolderLock> =>
  FolderLock.take(folder, { advice: 'wait for it', ...(lease === undefined ? {} : { lease }) });

async function withOtherProcess(work: (pid: number) => Promise<void>): Promise<void> {
  const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  try {
    await work(other.pid ?? -1);
  } finally {
    other.kill('SIGKILL');
    await once(other, 'exit');
  }
}

test('a folder that another process of this host uses is refused, and taken over once that process is gone', async () => {
  await withOtherProcess(async (pid) => {
    await writeOwner({ pid });
    await expect(take()).rejects.toThrow(`is used by process ${pid} on ${hostname()}; wait for it.`);
  });
  const lock = await take();
  await lock.release();
  expect(await readdir(folder)).toEqual([]);
});

test('what an attempt of this process, another host or a broken file left keeps nobody out', async () => {
  await writeOwner({ pid: process.pid });
  await (await take()).release();
  await writeOwner({ pid: 1, host: 'another-host' });
  await (await take()).release();
  await writeFile(join(folder, FolderLock.file), 'broken');
  await (await take()).release();
});

test('a later lease of the same job takes the folder over from a process that runs; an earlier one, or another job, does not', async () => {
  await withOtherProcess(async (pid) => {
    await writeOwner({ pid, lease: { jobId: 'a', token: 4 } });
    await expect(take({ jobId: 'a', token: 3 })).rejects.toThrow('is used by process');
    await expect(take({ jobId: 'b', token: 5 })).rejects.toThrow('is used by process');
    await (await take({ jobId: 'a', token: 5 })).release();
  });
});

test('who lost the folder is told, and leaves it to its new owner', async () => {
  const lock = await take();
  await lock.verify();
  await writeOwner({ pid: process.pid });
  await expect(lock.verify()).rejects.toThrow('was taken over by another process');
  await lock.release();
  expect(await readdir(folder)).toEqual([FolderLock.file]);
});
