import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { Resources } from '@secateur/rpc';
import { Journal, type Snapshot } from './journal.js';
import { Snapshots } from './snapshots.js';

const NEW = { jobId: 'job', identity: 'identity', dense: undefined, targets: undefined, layers: [], snapshot: undefined };

let folder: string;
let journal: Journal;
let resources: Resources;
let held: boolean;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'snapshots-'));
  journal = await Journal.begin(folder, NEW);
  resources = new Resources();
  held = true;
});
afterEach(async () => {
  await journal.close();
  await rm(folder, { recursive: true });
});

const lease = {
  assertHeld: () => {
    if (!held) throw new SecateurError('FAILED_PRECONDITION', 'The lease was lost.');
  },
};
const open = (journaled?: Snapshot): Promise<Snapshots> => Snapshots.open(folder, { jobId: 'job', resources, lease, journal }, journaled);
const journaled = async (): Promise<Snapshot | undefined> => (await Journal.read(folder))?.snapshot;

function takeTwo(snapshots: Snapshots, position: number, given = 2): Promise<SecateurError | undefined> {
  return snapshots.take(position, 2, async (write) => {
    for (let group = 0; group < given; ++group) await write(group, Buffer.from(`${position}.${group}`));
  });
}

async function contentOf(snapshots: Snapshots, group: number): Promise<string> {
  const { resource, bytes } = snapshots.of(group);
  const source = await resources.find(resource);
  expect(source.bytes).toBe(bytes);
  return Buffer.from(await source.read(0, bytes, new AbortController().signal, new Uint8Array(bytes))).toString();
}

describe('snapshots', () => {
  test('are served, and the newest replaces the others', async () => {
    const snapshots = await open();
    expect(snapshots.position).toBeUndefined();
    await takeTwo(snapshots, 4);
    await takeTwo(snapshots, 8);
    expect(snapshots.position).toBe(8);
    expect([await contentOf(snapshots, 0), await contentOf(snapshots, 1)]).toEqual(['8.0', '8.1']);
    expect(await readdir(join(folder, 'hidden-states'))).toEqual(['8']);
    expect((await journaled())?.position).toBe(8);
  });

  test('are found again', async () => {
    await takeTwo(await open(), 4);
    resources = new Resources();
    const again = await open(await journaled());
    expect(again.position).toBe(4);
    expect(await contentOf(again, 1)).toBe('4.1');
  });

  test('count only when they are whole: the one before stays', async () => {
    const snapshots = await open();
    await takeTwo(snapshots, 4);
    await takeTwo(snapshots, 8, 1);
    expect(snapshots.position).toBe(4);
    expect(await contentOf(snapshots, 0)).toBe('4.0');
    expect(await readdir(join(folder, 'hidden-states'))).toEqual(['4']);
  });

  test('whose file has another size, or is not there, are left', async () => {
    await takeTwo(await open(), 4);
    await writeFile(join(folder, 'hidden-states/4'), 'much longer');
    expect((await open(await journaled())).position).toBeUndefined();
    expect(await readdir(join(folder, 'hidden-states'))).toEqual([]);
    expect((await open(await journaled())).position).toBeUndefined();
  });

  test('that cannot be written are told of, and the one before stays', async () => {
    const snapshots = await open();
    await takeTwo(snapshots, 4);
    // A folder is where the file is to be.
    await mkdir(join(folder, 'hidden-states/8'));
    const problem = await takeTwo(snapshots, 8);
    expect(problem?.message).toMatch(/^Cannot create .*hidden-states\/8: it is a folder \(EISDIR\)\.$/);
    expect(snapshots.position).toBe(4);
    expect((await journaled())?.position).toBe(4);
    expect(await readdir(join(folder, 'hidden-states'))).toEqual(['4']);
    expect(await takeTwo(snapshots, 8)).toBeUndefined();
    expect(snapshots.position).toBe(8);
  });

  test('are given up with what their reading fails with, and leave no half', async () => {
    const snapshots = await open();
    const given = snapshots.take(4, 2, async (write) => {
      await write(0, Buffer.from('4.0'));
      throw new SecateurError('CANCELLED', 'The job was cancelled.');
    });
    await expect(given).rejects.toThrow('cancelled');
    expect(await readdir(join(folder, 'hidden-states'))).toEqual([]);
  });

  test('that cannot be read count as changed', async () => {
    const snapshots = await open();
    await takeTwo(snapshots, 4);
    await rm(join(folder, 'hidden-states'), { recursive: true });
    await expect(contentOf(snapshots, 0)).rejects.toMatchObject({
      reason: 'CORRUPT_DATA',
      message: expect.stringMatching(/^Cannot read .*hidden-states\/4: it does not exist/),
    });
  });

  test('are not journaled without the lease', async () => {
    const snapshots = await open();
    held = false;
    await expect(takeTwo(snapshots, 4)).rejects.toThrow('lease');
    expect(await journaled()).toBeUndefined();
  });

  test('go with the finished output', async () => {
    const snapshots = await open();
    await takeTwo(snapshots, 4);
    await snapshots.removeAll();
    expect(await readdir(folder)).toEqual(['journal.jsonl']);
    await expect(resources.find('jobs/job/hidden-states/0')).rejects.toThrow('No resource');
  });
});
