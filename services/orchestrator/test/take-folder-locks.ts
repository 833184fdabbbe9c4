// A process that takes the lock of a folder when it is told to, says whether it has it, and gives it back when it is told to.
import { SecateurError } from '@secateur/core';
import { FolderLock } from '../src/output/folder-lock.js';

let lock: FolderLock | undefined;

async function take(folder: string): Promise<boolean> {
  try {
    lock = await FolderLock.take(folder, { advice: 'wait for it' });
    return true;
  } catch (error) {
    if (error instanceof SecateurError && error.reason === 'ALREADY_EXISTS') return false;
    throw error;
  }
}

/** Says whether the lock was kept until now. */
async function release(): Promise<boolean> {
  const isKept = await lock!.verify().then(
    () => true,
    () => false,
  );
  await lock!.release();
  return isKept;
}

// What is not expected ends this process.
process.on('message', ({ folder }: { readonly folder?: string }) => {
  void (folder === undefined ? release() : take(folder)).then((answer) => process.send!(answer));
});
process.send!('ready');
