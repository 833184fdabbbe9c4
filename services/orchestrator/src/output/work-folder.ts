import { readdir, rm } from 'node:fs/promises';
import { errorCode } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import { FolderLock } from './folder-lock.js';
import { Journal, type JournalContent } from './journal.js';

/** Whether an attempt ended before it had a journal: nothing else is made before that. */
export async function isBarelyBegun(workFolder: string): Promise<boolean> {
  return (await readdir(workFolder)).every((name) => FolderLock.isOwn(name) || name === Journal.newFile);
}

/**
 * Deletes a work folder with what a job left in it. What another job began there, or went on with, stays. `before`: deletes what the journal tells of
 * that lies elsewhere.
 */
export async function removeWorkFolder(
  workFolder: string,
  jobId: string,
  before: (journal: JournalContent) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  if (!(await isThere(workFolder)) || !(await isWorkOf(workFolder, jobId))) return;
  const lock = await takeUnlessFull(workFolder);
  try {
    // Nobody begins there from here on.
    if (!(await isWorkOf(workFolder, jobId))) return;
    const journal = await Journal.read(workFolder);
    if (journal !== undefined) await before(journal);
    await rm(workFolder, { recursive: true, force: true });
  } finally {
    await lock?.release();
  }
}

/** On a disk without room for a lock nobody else can take it either, and what is deleted makes room. Throws where a process has the folder. */
async function takeUnlessFull(workFolder: string): Promise<FolderLock | undefined> {
  try {
    return await FolderLock.take(workFolder, { advice: 'delete the job when that has ended' });
  } catch (error) {
    if (error instanceof SecateurError && error.reason === 'RESOURCE_EXHAUSTED') return undefined;
    throw error;
  }
}

async function isThere(folder: string): Promise<boolean> {
  try {
    await readdir(folder);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

async function isWorkOf(workFolder: string, jobId: string): Promise<boolean> {
  const journal = await Journal.read(workFolder);
  return journal === undefined ? isBarelyBegun(workFolder) : journal.jobId === jobId;
}
