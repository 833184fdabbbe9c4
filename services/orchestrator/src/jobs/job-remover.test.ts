/** Jobs go after their files, with real files and a real store. */
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { auditActions } from '@secateur/access';
import { SecateurError } from '@secateur/core';
import { Job, JobSpec, JobState } from '@secateur/proto/job';
import { pino } from 'pino';
import { Journal } from '../output/journal.js';
import { OutputPlaces } from '../output/output-places.js';
import { toTimestamp } from '../store/job-record.js';
import type { JobStore } from '../store/job-store.js';
import { MemoryJobStore } from '../store/memory-job-store.js';
import { JobRemover } from './job-remover.js';
import { becomes } from './state-change.js';
import { Tenants } from './tenants.js';

let folder: string;
let store: JobStore;
let remover: JobRemover;
let lines: string[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'job-remover-'));
  store = new MemoryJobStore();
  lines = [];
  remover = create([folder]);
});
afterEach(async () => {
  remover.stop();
  await rm(folder, { recursive: true });
});

function create(roots: readonly string[]): JobRemover {
  const logger = pino({}, { write: (line) => lines.push(line) });
  const outputs = new OutputPlaces(join(folder, 'staging'));
  return new JobRemover({ store, outputs, tenants: Tenants.alike(roots), audit: auditActions(logger), logger });
}

interface Ended {
  readonly output?: string;
  readonly keptForMs?: number;
  readonly deleteOutput?: boolean;
}

/** A job that was cancelled, with what it left. */
async function addEnded(
  id: string,
  { output = join(folder, id), keptForMs = 3_600_000, deleteOutput = false }: Ended = {},
): Promise<string> {
  const spec = JobSpec.fromPartial({ kind: { $case: 'prune', value: { model: '/m', output } }, deleteOutput });
  await store.insert(
    Job.fromPartial({ id, spec, tenant: 'research', state: JobState.QUEUED, createdAt: toTimestamp(new Date()) }),
    spec,
    99,
  );
  await store.change(id, () => ({ events: [becomes(JobState.CANCELLED)], keptForMs }));
  return output;
}

/** What an attempt of a job left that had begun to write. */
async function leaveUnfinished(output: string, jobId: string | undefined): Promise<void> {
  const folder = `${output}.partial`;
  await mkdir(folder);
  const journal = await Journal.begin(folder, {
    jobId,
    identity: 'x',
    dense: undefined,
    targets: undefined,
    layers: [],
    snapshot: undefined,
  });
  await journal.close();
  await writeFile(join(folder, 'model.safetensors'), 'half');
}

const nothing = (): void => undefined;
const isThere = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;
const audited = (): unknown[] => lines.map((line) => JSON.parse(line) as { audit?: boolean }).filter(({ audit }) => audit === true);

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(5);
}

describe('a job', () => {
  test('goes with its unfinished output', async () => {
    const output = await addEnded('job');
    await leaveUnfinished(output, 'job');
    await remover.remove('job', false, nothing);
    expect(await isThere(`${output}.partial`)).toBe(false);
    expect(await store.read('job')).toBeUndefined();
  });

  test.each([
    ['another job', 'other'],
    ['nobody knows whom', undefined],
  ])('goes without what is of %s', async (_, owner) => {
    const output = await addEnded('job');
    await leaveUnfinished(output, owner);
    await remover.remove('job', false, nothing);
    expect(await store.read('job')).toBeUndefined();
    expect((await readdir(`${output}.partial`)).sort()).toEqual(['journal.jsonl', 'model.safetensors']);
  });

  test('stays as long as another process writes its folder', async () => {
    const output = await addEnded('job');
    await leaveUnfinished(output, 'job');
    const owner = { id: 'owner', host: hostname(), pid: process.ppid };
    await writeFile(join(`${output}.partial`, 'owner.json'), JSON.stringify(owner));
    await expect(remover.remove('job', false, nothing)).rejects.toThrow(`is used by process ${process.ppid}`);
    expect(await isThere(join(`${output}.partial`, 'model.safetensors'))).toBe(true);
    expect(await store.read('job')).toMatchObject({ wish: 'run' });
  });

  test('stays as long as its files cannot be removed, as it was, and goes when they can', async () => {
    const file = join(folder, 'file');
    await writeFile(file, '');
    await addEnded('job', { output: join(file, 'out') });
    const before = await store.read('job');
    await expect(remover.remove('job', false, nothing)).rejects.toThrow('ENOTDIR');
    expect(await store.read('job')).toMatchObject({ wish: 'run', job: { state: JobState.CANCELLED } });
    const [kept, meant] = [await store.read('job'), before].map((record) => record?.job.expiresAt?.seconds ?? 0);
    expect(Math.abs(kept! - meant!)).toBeLessThan(60);
    await rm(file);
    await remover.remove('job', false, nothing);
    expect(await store.read('job')).toBeUndefined();
  });

  test('is removed by one at a time', async () => {
    await addEnded('job');
    const results = await Promise.allSettled([remover.remove('job', false, nothing), create([folder]).remove('job', false, nothing)]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(results[1]).toMatchObject({ reason: { reason: 'FAILED_PRECONDITION', message: 'Job job is being deleted.' } });
  });

  test('whose remover is gone is removed later, by the time to live', async () => {
    const output = await addEnded('job');
    await mkdir(`${output}.partial`);
    // What a process leaves that ends after it has claimed the job; its claim is over.
    await store.change('job', () => ({ wish: 'cancel', keptForMs: 0 }));
    remover.start();
    await until(async () => (await store.read('job')) === undefined);
    expect(await isThere(`${output}.partial`)).toBe(false);
  });

  test('that has not ended, or that the caller may not use, is left', async () => {
    await addEnded('job');
    const refuse = (): never => {
      throw new SecateurError('NOT_FOUND', 'There is no job job.');
    };
    await expect(remover.remove('job', false, refuse)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await store.change('job', () => ({ events: [becomes(JobState.QUEUED)], maximumUnended: 9 }));
    await expect(remover.remove('job', false, nothing)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect(await store.read('job')).toMatchObject({ wish: 'run', job: { state: JobState.QUEUED } });
  });

  test('goes without its files where they lie outside of the roots now', async () => {
    const output = await addEnded('job');
    await mkdir(`${output}.partial`);
    await create([join(folder, 'elsewhere')]).remove('job', false, nothing);
    expect(await store.read('job')).toBeUndefined();
    expect(await isThere(`${output}.partial`)).toBe(true);
    expect(lines.join('')).toContain('outside of the roots');
  });
});

test('jobs whose time to live is over are removed and audited; one that cannot be keeps no other and is tried later', async () => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  await addEnded('stuck', { output: join(file, 'out'), keptForMs: 0 });
  await addEnded('over', { keptForMs: 0 });
  await addEnded('kept');
  remover.start();
  await until(async () => (await store.read('over')) === undefined && audited().length === 2);
  expect(await store.read('kept')).toBeDefined();
  expect(await store.read('stuck')).toMatchObject({ wish: 'run' });
  expect((await store.expired(10)).map(({ job }) => job.id)).toEqual([]);
  const who = { caller: 'time-to-live', tenant: 'research', method: 'secateur.v1.PruningService/DeleteJob' };
  expect(audited()).toMatchObject([
    { ...who, jobId: 'stuck', outcome: 'FAILED_PRECONDITION' },
    { ...who, jobId: 'over', outcome: 'OK' },
  ]);
});
