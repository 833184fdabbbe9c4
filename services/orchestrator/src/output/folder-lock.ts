import { createHash, randomUUID } from 'node:crypto';
import { constants, link, readdir, readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { errorCode, toFileError, withFileErrors } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';

const OWNER_FILE = 'owner.json';
/** Begins the names of files that are there only while a process takes the folder. A crash may leave some. */
const PASSING_FILES = `${OWNER_FILE}.`;
/** What link() fails with where a file system has no hard links. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK']);

/** The lease by which a job writes a folder. */
export interface WritingLease {
  readonly jobId: string;
  readonly token: number;
}

interface Owner {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly lease: WritingLease | undefined;
}

export interface FolderLockOptions {
  /** What a person can do when another process has the folder. */
  readonly advice: string;
  /** A later lease of the same job takes the folder over from a process that runs but lost the job. */
  readonly lease?: WritingLease;
}

/** Keeps two processes from writing to one folder. What a process of this host that is gone had locked is taken over. */
export class FolderLock {
  private constructor(
    private readonly directory: string,
    private readonly id: string,
  ) {}

  /** Whether a file of that name in the folder is the lock's, or one that was there only while the lock was taken. */
  static isOwn(name: string): boolean {
    return name === OWNER_FILE || name.startsWith(PASSING_FILES);
  }

  static async take(directory: string, { advice, lease }: FolderLockOptions): Promise<FolderLock> {
    const owner: Owner = { id: randomUUID(), host: hostname(), pid: process.pid, lease };
    await own(join(directory, OWNER_FILE), owner, {
      keepsOut: (other) => isRunning(other) && !supersedes(lease, other.lease),
      refusal: ({ pid, host }) => new SecateurError('ALREADY_EXISTS', `${directory} is used by process ${pid} on ${host}; ${advice}.`),
    });
    return new FolderLock(directory, owner.id);
  }

  /** Throws LEASE_LOST when the folder was taken over. */
  async verify(): Promise<void> {
    const owner = await readOwner(join(this.directory, OWNER_FILE));
    if (owner?.id !== this.id) throw new SecateurError('LEASE_LOST', `${this.directory} was taken over by another process.`);
  }

  /** Throws when its files cannot be removed, which are no part of what was made in the folder. */
  async release(): Promise<void> {
    const path = join(this.directory, OWNER_FILE);
    if ((await readOwner(path))?.id !== this.id) return;
    try {
      await removeLeftovers(this.directory);
    } finally {
      await withFileErrors('remove', path, () => unlink(path));
    }
  }
}

interface Others {
  /** Whether a file's owner keeps it. */
  readonly keepsOut: (other: Owner) => boolean;
  /** The error that tells who does. */
  readonly refusal: (other: Owner) => SecateurError;
}

/** Makes the file of an owner, in place of one whose owner does not keep it. */
async function own(path: string, owner: Owner, { keepsOut, refusal }: Others): Promise<void> {
  for (;;) {
    const present = await readText(path);
    if (present === undefined) {
      if (await createWhole(path, JSON.stringify(owner))) return;
      continue;
    }
    const other = toOwner(present);
    if (other !== undefined && keepsOut(other)) throw refusal(other);
    await removeStale(path, present, owner, refusal);
  }
}

/**
 * Removes a file that is to be taken over, if it is still the one that was read. Others may have read it too and, if they came late, would
 * remove the one of who was first. So one at a time does it: the owner of a second file, whose name is made from what the first one holds. That
 * one is taken over in the same way from a process that is gone, but never from one that runs, which may be just about to remove the first.
 */
async function removeStale(path: string, read: string, { host, pid }: Owner, refusal: Others['refusal']): Promise<void> {
  const digest = createHash('sha256').update(read).digest('hex');
  const claim = join(dirname(path), `${PASSING_FILES}${digest}`);
  await own(claim, { id: randomUUID(), host, pid, lease: undefined }, { keepsOut: isRunning, refusal });
  try {
    if ((await readText(path)) === read) await withFileErrors('remove', path, () => rm(path, { force: true }));
  } finally {
    await withFileErrors('remove', claim, () => rm(claim, { force: true }));
  }
}

/** Makes a file that nobody sees before it is whole; false when there is one. */
async function createWhole(path: string, content: string): Promise<boolean> {
  const whole = join(dirname(path), `${PASSING_FILES}${randomUUID()}`);
  try {
    await withFileErrors('write', path, () => writeFile(whole, content, { flag: 'wx' }));
    await link(whole, path);
    return true;
  } catch (error) {
    const code = errorCode(error) ?? '';
    if (NO_LINKS.has(code)) return await createInPlace(path, content);
    // Who had the folder may have removed the new file with what was left there.
    if (code === 'EEXIST' || code === 'ENOENT') return false;
    throw toFileError('write', path, error);
  } finally {
    // One that stays is removed with the lock.
    await rm(whole, { force: true }).catch(() => undefined);
  }
}

/** Others may see it before it is whole. */
async function createInPlace(path: string, content: string): Promise<boolean> {
  try {
    await writeFile(path, content, { flag: 'wx' });
    return true;
  } catch (error) {
    if (errorCode(error) === 'EEXIST') return false;
    throw toFileError('write', path, error);
  }
}

/** Removes what processes that are gone left while they took the folder. */
async function removeLeftovers(directory: string): Promise<void> {
  const names = await withFileErrors('read', directory, () => readdir(directory));
  for (const name of names.filter((candidate) => candidate.startsWith(PASSING_FILES))) {
    const path = join(directory, name);
    const owner = await readOwner(path);
    if (owner === undefined || !isRunning(owner)) await withFileErrors('remove', path, () => rm(path, { force: true }));
  }
}

function supersedes(lease: WritingLease | undefined, other: WritingLease | undefined): boolean {
  return lease !== undefined && other?.jobId === lease.jobId && other.token < lease.token;
}

async function readOwner(path: string): Promise<Owner | undefined> {
  const text = await readText(path);
  return text === undefined ? undefined : toOwner(text);
}

/** Undefined when there is no such file; nothing where it cannot be read, as through a link that leads nowhere. */
async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, { encoding: 'utf8', flag: constants.O_RDONLY | constants.O_NOFOLLOW });
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? undefined : '';
  }
}

/** Undefined for what is no owner's, such as a file that is not whole. */
function toOwner(text: string): Owner | undefined {
  try {
    const owner: unknown = JSON.parse(text);
    if (!isRecord(owner)) return undefined;
    const { id, host, pid, lease } = owner;
    if (typeof id !== 'string' || typeof host !== 'string' || typeof pid !== 'number') return undefined;
    return { id, host, pid, lease: toLease(lease) };
  } catch {
    return undefined;
  }
}

function toLease(value: unknown): WritingLease | undefined {
  if (!isRecord(value)) return undefined;
  const { jobId, token } = value;
  return typeof jobId === 'string' && typeof token === 'number' ? { jobId, token } : undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Of other hosts nothing is known: their orchestrator may have moved here, so they do not keep anybody waiting. */
function isRunning({ host, pid }: Owner): boolean {
  if (host !== hostname() || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}
