import { readFile, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { SecateurError } from '@secateur/core';

const OWNER_FILE = 'owner.json';

interface Owner {
  readonly host: string;
  readonly pid: number;
}

/** Keeps two processes from writing to one unfinished output. What a process of this host that is gone had locked is taken over. */
export class OutputLock {
  private constructor(private readonly path: string) {}

  /** Name of the lock's file in the folder. */
  static readonly file = OWNER_FILE;

  static async take(directory: string): Promise<OutputLock> {
    const path = join(directory, OWNER_FILE);
    const owner: Owner = { host: hostname(), pid: process.pid };
    for (;;) {
      try {
        await writeFile(path, JSON.stringify(owner), { flag: 'wx' });
        return new OutputLock(path);
      } catch (error) {
        if (!isCode(error, 'EEXIST')) throw error;
      }
      const other = await readOwner(path);
      if (other !== undefined && isRunning(other)) {
        throw new SecateurError(
          'ALREADY_EXISTS',
          `${directory} is being written by process ${other.pid} on ${other.host}; wait for it, or choose another output folder.`,
        );
      }
      await unlink(path).catch((error: unknown) => {
        if (!isCode(error, 'ENOENT')) throw error;
      });
    }
  }

  async release(): Promise<void> {
    await unlink(this.path).catch(() => undefined);
  }
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    const owner: unknown = JSON.parse(await readFile(path, 'utf8'));
    if (typeof owner !== 'object' || owner === null || !('host' in owner) || !('pid' in owner)) return undefined;
    const { host, pid } = owner;
    return typeof host === 'string' && typeof pid === 'number' ? { host, pid } : undefined;
  } catch {
    return undefined;
  }
}

/** Of other hosts nothing is known: their orchestrator may have moved here, so they do not keep anybody waiting. */
function isRunning({ host, pid }: Owner): boolean {
  if (host !== hostname() || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isCode(error, 'EPERM');
  }
}

function isCode(error: unknown, code: string): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === code;
}
