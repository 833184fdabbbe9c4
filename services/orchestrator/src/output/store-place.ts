import { readdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { stagingFolder, StoreOutput } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import { FolderLock } from './folder-lock.js';
import { Journal } from './journal.js';
import { REPORT_FILE, type FinishedOutput, type OutputPlace } from './output-place.js';
import { removeWorkFolder } from './work-folder.js';

const UPLOADS_FILE = 'uploads.jsonl';

/** A prefix of a store. The output is made in a staging folder of this machine, sent from there and whole once its report is there, which is sent last. */
export class StorePlace implements OutputPlace {
  readonly workFolder: string;

  constructor(
    private readonly url: string,
    staging: string,
  ) {
    this.workFolder = stagingFolder(url, staging);
  }

  async isTaken(): Promise<boolean> {
    return (await this.open()).has(REPORT_FILE);
  }

  /** The work folder goes once the output is whole; as long as it is there it tells whose that has to be. */
  async isPublished(): Promise<boolean> {
    if (!(await this.isTaken())) return false;
    const journal = await Journal.read(this.workFolder);
    return journal === undefined || (await (await this.open()).isOf(journal.identity, REPORT_FILE));
  }

  async requireFree(identity: string): Promise<void> {
    const output = await this.open();
    if (await output.has(REPORT_FILE)) {
      throw new SecateurError('ALREADY_EXISTS', `The output ${this.url} exists; choose another or remove it.`);
    }
    await output.requireOwn(identity);
  }

  async publish({ identity, assertHeld, unlock, signal }: FinishedOutput): Promise<void> {
    const own = new Set([basename(Journal.pathIn(this.workFolder)), UPLOADS_FILE, REPORT_FILE]);
    const names = (await readdir(this.workFolder)).filter((name) => !own.has(name) && !FolderLock.isOwn(name)).sort();
    await (
      await this.open()
    ).send({
      folder: this.workFolder,
      names: [...names, REPORT_FILE],
      owner: identity,
      record: join(this.workFolder, UPLOADS_FILE),
      beforeFile: assertHeld,
      signal,
    });
    await unlock();
    await this.removeLeftovers();
  }

  async removeLeftovers(): Promise<void> {
    await rm(this.workFolder, { recursive: true, force: true });
  }

  async remove(): Promise<void> {
    await (await this.open()).remove(REPORT_FILE);
  }

  async removeUnfinished(jobId: string): Promise<void> {
    await removeWorkFolder(this.workFolder, jobId, async ({ identity }) => {
      await (await this.open()).removeUnfinished(join(this.workFolder, UPLOADS_FILE), identity);
    });
  }

  private open(): Promise<StoreOutput> {
    return StoreOutput.open(this.url);
  }
}
