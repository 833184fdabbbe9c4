import { fork, spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { FolderLock, type WritingLease } from './folder-lock.js';

const LOADER = new URL('../../../../scripts/lib/typescript-loader.mjs', import.meta.url).href;
const RIVAL = fileURLToPath(new URL('../../test/take-folder-locks.ts', import.meta.url));
const RIVALS = 6;
const ROUNDS = 200;

const OWNER_FILE = 'owner.json';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'folder-lock-'));
});
afterEach(() => rm(folder, { recursive: true }));

interface Written {
  readonly id?: string;
  readonly pid: number;
  readonly host?: string;
  readonly lease?: WritingLease;
}

const ownerText = ({ id = 'other', pid, host = hostname(), lease }: Written): string => JSON.stringify({ id, host, pid, lease });

const writeOwner = (owner: Written): Promise<void> => writeFile(join(folder, OWNER_FILE), ownerText(owner));

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

/** What a process says next; fails when it ends instead. */
async function answerOf(rival: ChildProcess): Promise<unknown> {
  const ended = new AbortController();
  const onExit = (): void => ended.abort();
  rival.once('exit', onExit);
  const [answer] = (await once(rival, 'message', { signal: ended.signal })) as unknown[];
  rival.off('exit', onExit);
  return answer;
}

async function ask(rival: ChildProcess, question: { readonly folder?: string }): Promise<unknown> {
  const answer = answerOf(rival);
  rival.send(question);
  return answer;
}

/** Lets several processes take the folder at the same time, again and again, and expects that one of them gets and keeps it. */
async function compete(prepare: (round: number) => Promise<void>): Promise<void> {
  const rivals = Array.from({ length: RIVALS }, () => fork(RIVAL, { execArgv: ['--import', LOADER] }));
  try {
    await Promise.all(rivals.map(answerOf));
    for (let round = 0; round < ROUNDS; ++round) {
      await prepare(round);
      const answers = await Promise.all(rivals.map((rival) => ask(rival, { folder })));
      const winners = rivals.filter((_, index) => answers[index] === true);
      expect({ round, winners: winners.length }).toEqual({ round, winners: 1 });
      expect(await readdir(folder)).toEqual([OWNER_FILE]);
      expect(await ask(winners[0]!, {})).toBe(true);
      expect(await readdir(folder)).toEqual([]);
    }
  } finally {
    await Promise.all(
      rivals
        .filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)
        .map(async (rival) => {
          rival.kill('SIGKILL');
          await once(rival, 'exit');
        }),
    );
  }
}

async function pidOfGone(): Promise<number> {
  let gone = -1;
  await withOtherProcess((pid) => Promise.resolve(void (gone = pid)));
  return gone;
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
  await writeFile(join(folder, OWNER_FILE), 'broken');
  await (await take()).release();
  await symlink(join(folder, 'nowhere'), join(folder, OWNER_FILE));
  await (await take()).release();
  expect(await readdir(folder)).toEqual([]);
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
  expect(await readdir(folder)).toEqual([OWNER_FILE]);
});

test('of several processes that take a folder at once, one gets it', () => compete(() => Promise.resolve()));

test('of several processes that take a folder over at once, one gets it', async () => {
  const gone = await pidOfGone();
  await compete((round) => writeOwner({ id: `gone-${round}`, pid: gone }));
});

test('what a process that was killed while it took the folder left keeps nobody out, and goes with the lock', async () => {
  await withOtherProcess(async (pid) => {
    const left = `${OWNER_FILE}.half`;
    const taking = `${OWNER_FILE}.taking`;
    await writeFile(join(folder, left), '{"id":');
    await writeFile(join(folder, taking), ownerText({ pid }));
    await (await take()).release();
    expect(await readdir(folder)).toEqual([taking]);
    expect([OWNER_FILE, left, taking, 'owner.jsonl', 'journal.jsonl'].filter((name) => FolderLock.isOwn(name))).toEqual([
      OWNER_FILE,
      left,
      taking,
    ]);
  });
  await (await take()).release();
  expect(await readdir(folder)).toEqual([]);
});

test('one that was killed while it took over from another that is gone keeps nobody out', async () => {
  const text = ownerText({ pid: await pidOfGone() });
  const claim = join(folder, `${OWNER_FILE}.${createHash('sha256').update(text).digest('hex')}`);
  await writeFile(join(folder, OWNER_FILE), text);
  await withOtherProcess(async (pid) => {
    await writeFile(claim, ownerText({ id: 'claimant', pid }));
    await expect(take()).rejects.toThrow(`is used by process ${pid}`);
  });
  await (await take()).release();
  expect(await readdir(folder)).toEqual([]);
});
