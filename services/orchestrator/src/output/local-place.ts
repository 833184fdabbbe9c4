import { rm, stat } from 'node:fs/promises';
import { publishDirectory } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import { Journal } from './journal.js';
import type { FinishedOutput, OutputPlace } from './output-place.js';
import { removeWorkFolder } from './work-folder.js';

/** A folder of this machine. Until it is whole it is called `<folder>.partial`. */
export class LocalPlace implements OutputPlace {
  readonly workFolder: string;

  constructor(private readonly folder: string) {
    this.workFolder = `${folder}.partial`;
  }

  async isTaken(): Promise<boolean> {
    return isThere(this.folder);
  }

  /** The work folder is what gets the name. */
  async isPublished(): Promise<boolean> {
    return (await this.isTaken()) && !(await isThere(this.workFolder));
  }

  async requireFree(): Promise<void> {
    if (await this.isTaken()) {
      throw new SecateurError('ALREADY_EXISTS', `The output folder ${this.folder} exists; choose another or remove it.`);
    }
  }

  async publish({ unlock }: FinishedOutput): Promise<void> {
    await unlock();
    await publishDirectory(this.workFolder, this.folder);
    await Journal.remove(this.folder);
  }

  async removeLeftovers(): Promise<void> {
    await Journal.remove(this.folder);
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  async removeUnfinished(jobId: string): Promise<void> {
    await removeWorkFolder(this.workFolder, jobId);
  }
}

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}
