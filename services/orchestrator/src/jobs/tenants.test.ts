import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Tenants } from './tenants.js';

const ROOTS = ['/data'];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tenants-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function read(content: unknown): Promise<Tenants> {
  const path = join(folder, 'tenants.json');
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return Tenants.read(path, ROOTS);
}

test('rules that are left out are the default ones, and those the service has', async () => {
  const tenants = await read({ default: { runningJobs: 2, maximumPriority: 0 }, tenants: { a: { runningJobs: 5, roots: ['/a'] } } });
  expect(tenants.of('a')).toEqual({ runningJobs: 5, unendedJobs: 100_000, maximumPriority: 0, roots: ['/a'] });
  expect(tenants.of('b')).toEqual({ runningJobs: 2, unendedJobs: 100_000, maximumPriority: 0, roots: ROOTS });
  expect(tenants.runningLimits).toEqual({ others: 2, tenants: { a: 5 } });
  expect((await read({})).of('a')).toEqual(Tenants.alike(ROOTS).of('a'));
});

test.each([
  ['{', 'JSON'],
  [[], 'the file must be an object'],
  [{ tenant: {} }, 'has "tenant", which means nothing here'],
  [{ tenants: { a: { running: 1 } } }, 'tenants.a has "running"'],
  [{ default: { runningJobs: 0 } }, 'default.runningJobs must be a whole number from 1'],
  [{ default: { maximumPriority: 1001 } }, 'default.maximumPriority must be a whole number from -1000 to 1000'],
  [{ tenants: { a: { roots: ['relative'] } } }, 'tenants.a.roots must be a list of absolute paths'],
  [{ tenants: { a: 3 } }, 'tenants.a must be an object'],
])('%j is refused', async (content, message) => {
  await expect(read(content)).rejects.toThrow(message);
});

test('a file that is not there is named', async () => {
  await expect(Tenants.read(join(folder, 'nowhere.json'), ROOTS)).rejects.toThrow('nowhere.json');
});
