import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const heartbeatMs = 2_000;
const staleAfterMs = 30_000;
const pollMs = 100;

/**
 * Runs `work` while holding a lock file. A lock whose owner has gone is taken over: the owner's process no longer exists, or it has not
 * touched the file for half a minute.
 * @template T
 * @param {string} file
 * @param {{ onWait?: (owner: number) => void }} options
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withFileLock(file, { onWait }, work) {
  mkdirSync(dirname(file), { recursive: true });
  for (let announced = false; !tryLock(file);) {
    const owner = readOwner(file);
    if (owner !== undefined && isStale(file, owner)) removeStale(file, owner);
    else {
      if (!announced && owner !== undefined) onWait?.(owner);
      announced ||= owner !== undefined;
      await sleep(pollMs);
    }
  }
  const release = () => {
    if (readOwner(file) === process.pid) rmSync(file, { force: true });
  };
  const heartbeat = setInterval(() => touch(file), heartbeatMs);
  process.once('exit', release);
  try {
    return await work();
  } finally {
    clearInterval(heartbeat);
    process.off('exit', release);
    release();
  }
}

/** The file appears under its name with its content already in it, so no reader ever sees an empty lock. @param {string} file */
function tryLock(file) {
  const own = `${file}.${String(process.pid)}`;
  writeFileSync(own, String(process.pid));
  try {
    linkSync(own, file);
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(own, { force: true });
  }
}

/** @param {string} file */
function readOwner(file) {
  try {
    return Number(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
}

/** @param {string} file @param {number} owner */
function isStale(file, owner) {
  const status = statSync(file, { throwIfNoEntry: false });
  return status !== undefined && (!isRunning(owner) || Date.now() - status.mtimeMs > staleAfterMs);
}

/** @param {number} pid */
function isRunning(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === 'EPERM';
  }
}

/** Moves the lock away and puts it back if another process took it over in between. @param {string} file @param {number} owner */
function removeStale(file, owner) {
  const aside = `${file}.stale.${String(process.pid)}`;
  try {
    renameSync(file, aside);
    if (readOwner(aside) !== owner) linkSync(aside, file);
  } catch {
    // Another process was faster: the next attempt to lock decides.
  } finally {
    rmSync(aside, { force: true });
  }
}

/** @param {string} file */
function touch(file) {
  try {
    utimesSync(file, new Date(), new Date());
  } catch {
    // The lock was taken over while this process was stopped; its work is safe to finish.
  }
}
