import { mkdir, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { loadHasher } from '@secateur/core';
import type { ResourceDescriptor, Resources } from '@secateur/rpc';
import type { JobLease } from '../jobs/job-lease.js';
import type { Journal, Snapshot } from './journal.js';

const FOLDER = 'hidden-states';

/**
 * Hidden states of all groups before a block, kept beside an unfinished output so that less of it is computed again. The newest counts; one that
 * is not whole never does.
 */
export class Snapshots {
  private constructor(
    private readonly folder: string,
    private readonly jobId: string,
    private readonly resources: Resources,
    private readonly lease: JobLease,
    private readonly journal: Journal,
    private current: Snapshot | undefined,
  ) {}

  /** Goes on with a journaled one whose files are all there, and removes all others. */
  static async open(
    directory: string,
    { jobId, resources, lease, journal }: { jobId: string; resources: Resources; lease: JobLease; journal: Journal },
    journaled: Snapshot | undefined,
  ): Promise<Snapshots> {
    const snapshots = new Snapshots(join(directory, FOLDER), jobId, resources, lease, journal, undefined);
    if (journaled !== undefined && (await snapshots.isWhole(journaled))) {
      snapshots.current = journaled;
      snapshots.publish(journaled);
    }
    await snapshots.removeOthers();
    return snapshots;
  }

  /** The block that the newest is the input of; undefined when there is none. */
  get position(): number | undefined {
    return this.current?.position;
  }

  /** Where nodes pull what the newest has of a group. */
  of(groupIndex: number): Required<ResourceDescriptor> {
    return { resource: this.resourceOf(groupIndex), ...this.current!.states[groupIndex]! };
  }

  /** Keeps one more, of so many groups, which `read` gives one after the other. Nothing changes unless `read` gives all of them. */
  async take(position: number, groups: number, read: (write: (groupIndex: number, states: Buffer) => Promise<void>) => Promise<void>) {
    const hasher = await loadHasher();
    const states = new Map<number, Snapshot['states'][number]>();
    await mkdir(this.folderOf(position), { recursive: true });
    await read(async (groupIndex, content) => {
      await writeDurably(this.pathOf(position, groupIndex), content);
      states.set(groupIndex, { bytes: content.byteLength, digest: hasher.digest(content) });
    });
    if (states.size === groups) {
      this.lease.assertHeld();
      const snapshot = { position, states: Array.from({ length: groups }, (_, groupIndex) => states.get(groupIndex)!) };
      await this.journal.appendSnapshot(snapshot);
      this.current = snapshot;
      this.publish(snapshot);
    }
    await this.removeOthers();
  }

  /** Nothing is kept any more: the output is finished, or what is in the files has changed. */
  async removeAll(): Promise<void> {
    this.current = undefined;
    this.resources.withdraw(this.prefix);
    await rm(this.folder, { recursive: true, force: true });
  }

  private get prefix(): string {
    return `jobs/${this.jobId}/hidden-states/`;
  }

  private resourceOf(groupIndex: number): string {
    return `${this.prefix}${groupIndex}`;
  }

  private folderOf(position: number): string {
    return join(this.folder, String(position));
  }

  private pathOf(position: number, groupIndex: number): string {
    return join(this.folderOf(position), String(groupIndex));
  }

  /** What is in the files is checked by who pulls it. */
  private async isWhole({ position, states }: Snapshot): Promise<boolean> {
    const sizes = await Promise.all(
      states.map((_, groupIndex) =>
        stat(this.pathOf(position, groupIndex)).then(
          ({ size }) => size,
          () => -1,
        ),
      ),
    );
    return states.every(({ bytes }, groupIndex) => sizes[groupIndex] === bytes);
  }

  private publish({ position, states }: Snapshot): void {
    for (const [groupIndex, { bytes }] of states.entries()) {
      const path = this.pathOf(position, groupIndex);
      this.resources.publish(this.resourceOf(groupIndex), {
        bytes,
        read: (offset, _length, _signal, room) => readRange(path, offset, room),
      });
    }
  }

  private async removeOthers(): Promise<void> {
    const kept = String(this.current?.position);
    const names = await readdir(this.folder).catch(() => []);
    await Promise.all(names.filter((name) => name !== kept).map((name) => rm(join(this.folder, name), { recursive: true, force: true })));
  }
}

async function writeDurably(path: string, content: Buffer): Promise<void> {
  await using file = await open(path, 'w');
  await file.writeFile(content);
  await file.sync();
}

async function readRange(path: string, offset: number, room: Uint8Array): Promise<Uint8Array> {
  await using file = await open(path, 'r');
  const { bytesRead } = await file.read(room, 0, room.byteLength, offset);
  return room.subarray(0, bytesRead);
}
