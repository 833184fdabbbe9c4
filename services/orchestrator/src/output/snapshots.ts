import { open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory, toFileError, withFileErrors } from '@secateur/checkpoint';
import { loadHasher, SecateurError } from '@secateur/core';
import type { ResourceDescriptor, Resources } from '@secateur/rpc';
import type { JobLease } from '../jobs/job-lease.js';
import type { Journal, KeptGroup, Snapshot } from './journal.js';

const FOLDER = 'hidden-states';

export interface SnapshotsOptions {
  readonly jobId: string;
  readonly resources: Resources;
  readonly lease: Pick<JobLease, 'assertHeld'>;
  readonly journal: Journal;
}

/**
 * Hidden states of all groups before a block, in a file beside an unfinished output, so that less of it is computed again. The newest counts; one
 * that is not whole never does.
 */
export class Snapshots {
  private constructor(
    private readonly folder: string,
    private readonly options: SnapshotsOptions,
    private current: Snapshot | undefined,
  ) {}

  /** Goes on with the one that was journaled, if it is there, and removes all others. */
  static async open(directory: string, options: SnapshotsOptions, journaled: Snapshot | undefined): Promise<Snapshots> {
    const snapshots = new Snapshots(join(directory, FOLDER), options, undefined);
    if (journaled !== undefined && (await snapshots.isWhole(journaled))) snapshots.turnTo(journaled);
    await snapshots.removeOthers();
    return snapshots;
  }

  /** The block that the newest is the input of; undefined when there is none. */
  get position(): number | undefined {
    return this.current?.position;
  }

  /** Where nodes pull what the newest has of a group. */
  of(groupIndex: number): Required<ResourceDescriptor> {
    const { bytes, digest } = this.current!.groups[groupIndex]!;
    return { resource: this.resourceOf(groupIndex), bytes, digest };
  }

  /**
   * Keeps one more, of so many groups, which `read` gives one after the other. Nothing changes unless it gives all of them. Gives the error of a
   * file that cannot be written: the job can do without, and with the one before.
   */
  async take(
    position: number,
    groupCount: number,
    read: (keep: (groupIndex: number, states: Buffer) => Promise<void>) => Promise<void>,
  ): Promise<SecateurError | undefined> {
    const path = this.pathOf(position);
    const file = new SnapshotFile(path);
    try {
      const groups = await file.write(this.folder, groupCount, read);
      if (groups !== undefined) {
        this.options.lease.assertHeld();
        // A journal that takes no more is no matter of the snapshot: nothing could be added to it any more.
        await this.options.journal.appendSnapshot({ position, groups });
        this.turnTo({ position, groups });
      }
    } catch (error) {
      if (file.problem === undefined || error !== file.problem) throw error;
    } finally {
      await this.removeOthers();
    }
    return file.problem;
  }

  /** The output is finished. */
  async removeAll(): Promise<void> {
    this.current = undefined;
    this.options.resources.withdraw(this.prefix);
    await withFileErrors('remove', this.folder, () => rm(this.folder, { recursive: true, force: true }));
  }

  private get prefix(): string {
    return `jobs/${this.options.jobId}/hidden-states/`;
  }

  private resourceOf(groupIndex: number): string {
    return `${this.prefix}${groupIndex}`;
  }

  private pathOf(position: number): string {
    return join(this.folder, String(position));
  }

  /** What is in the file is checked by who pulls it. */
  private async isWhole({ position, groups }: Snapshot): Promise<boolean> {
    const { size } = await stat(this.pathOf(position)).catch(() => ({ size: -1 }));
    return size === groups.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  private turnTo(snapshot: Snapshot): void {
    this.current = snapshot;
    const path = this.pathOf(snapshot.position);
    for (const [groupIndex, { offset, bytes }] of snapshot.groups.entries()) {
      this.options.resources.publish(this.resourceOf(groupIndex), {
        bytes,
        read: (start, _length, _signal, room) => readInto(room, path, offset + start),
      });
    }
  }

  /** Those that cannot be removed now are removed with the next, or with all at the end. */
  private async removeOthers(): Promise<void> {
    const kept = String(this.current?.position);
    const names = await readdir(this.folder).catch(() => []);
    const others = names.filter((name) => name !== kept);
    await Promise.allSettled(others.map((name) => rm(join(this.folder, name), { recursive: true, force: true })));
  }
}

/** A file of hidden states while it is written. */
class SnapshotFile {
  /** Why it cannot be written. */
  problem: SecateurError | undefined;

  constructor(private readonly path: string) {}

  /** Where each group is; undefined where not all were given. Throws `problem`, or what `read` throws. */
  async write(
    folder: string,
    groupCount: number,
    read: (keep: (groupIndex: number, states: Buffer) => Promise<void>) => Promise<void>,
  ): Promise<KeptGroup[] | undefined> {
    const hasher = await loadHasher();
    const kept = new Map<number, KeptGroup>();
    const file = await this.attempt('create', async () => {
      await makeDirectory(folder);
      return open(this.path, 'w');
    });
    try {
      let offset = 0;
      await read(async (groupIndex, states) => {
        await this.attempt('write', () => file.writeFile(states));
        kept.set(groupIndex, { offset, bytes: states.byteLength, digest: hasher.digest(states) });
        offset += states.byteLength;
      });
      await this.attempt('write', () => file.sync());
    } finally {
      await this.attempt('write', () => file.close());
    }
    return kept.size === groupCount ? Array.from({ length: groupCount }, (_, groupIndex) => kept.get(groupIndex)!) : undefined;
  }

  private async attempt<Value>(action: string, operation: () => Promise<Value>): Promise<Value> {
    try {
      return await operation();
    } catch (error) {
      this.problem = toFileError(action, this.path, error);
      throw this.problem;
    }
  }
}

/** A file that cannot be read is no better than one that was changed: who pulls it does without. */
async function readInto(room: Uint8Array, path: string, offset: number): Promise<Uint8Array> {
  try {
    const file = await open(path, 'r');
    try {
      const { bytesRead } = await file.read(room, 0, room.byteLength, offset);
      return room.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new SecateurError('CORRUPT_DATA', toFileError('read', path, error).message, { cause: error });
  }
}
