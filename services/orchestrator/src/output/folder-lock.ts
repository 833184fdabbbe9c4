import { randomUUID } from 'node:crypto';
import { readFile, rm, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { errorCode, withFileErrors } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';

const OWNER_FILE = 'owner.json';

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

  /** Name of the lock's file in the folder. */
  static readonly file = OWNER_FILE;

  static async take(directory: string, { advice, lease }: FolderLockOptions): Promise<FolderLock> {
    const path = join(directory, OWNER_FILE);
    const owner: Owner = { id: randomUUID(), host: hostname(), pid: process.pid, lease };
    for (;;) {
      try {
        await withFileErrors('write', path, () => writeFile(path, JSON.stringify(owner), { flag: 'wx' }));
        return new FolderLock(directory, owner.id);
      } catch (error) {
        if (!(error instanceof SecateurError) || error.reason !== 'ALREADY_EXISTS') throw error;
      }
      const other = await readOwner(path);
      if (other !== undefined && isRunning(other) && !supersedes(lease, other.lease)) {
        throw new SecateurError('ALREADY_EXISTS', `${directory} is used by process ${other.pid} on ${other.host}; ${advice}.`);
      }
      await withFileErrors('remove', path, () => rm(path, { force: true }));
    }
  }

  /** Throws LEASE_LOST when the folder was taken over. */
  async verify(): Promise<void> {
    const owner = await readOwner(join(this.directory, OWNER_FILE));
    if (owner?.id !== this.id) throw new SecateurError('LEASE_LOST', `${this.directory} was taken over by another process.`);
  }

  /** Throws when its file cannot be removed, which is no part of what was made in the folder. */
  async release(): Promise<void> {
    const path = join(this.directory, OWNER_FILE);
    if ((await readOwner(path))?.id === this.id) await withFileErrors('remove', path, () => unlink(path));
  }
}

function supersedes(lease: WritingLease | undefined, other: WritingLease | undefined): boolean {
  return lease !== undefined && other?.jobId === lease.jobId && other.token < lease.token;
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    const owner: unknown = JSON.parse(await readFile(path, 'utf8'));
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
