import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { checkPaths } from './check-request.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secateur-check-'));
  for (const name of ['LICENSE', 'text.txt', 'ids.safetensors.gz']) await writeFile(join(folder, name), 'text');
});
afterAll(() => rm(folder, { recursive: true }));

const check = (name: string) => checkPaths([{ flag: '--calibration', path: join(folder, name), expected: 'is data' }]);

test('data whose names say what they hold are taken', async () => {
  await expect(check('text.txt')).resolves.toBeUndefined();
  await expect(check('*.txt')).resolves.toBeUndefined();
});

test.each(['LICENSE', 'ids.safetensors.gz', '*'])('%s is refused by its name before anything is started', async (name) => {
  await expect(check(name)).rejects.toMatchObject({
    reason: 'INVALID_REQUEST',
    violations: [{ field: '--calibration', description: expect.stringMatching(/(LICENSE|gz): the data must be a \.txt/) }],
  });
});
