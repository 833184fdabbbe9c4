import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { localRoots } from './local-roots.js';

test('the folders of the model and the data, and those their links lead to', async () => {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'secateur-roots-')));
  try {
    for (const name of ['blobs', 'snapshot', 'data', 'elsewhere']) await mkdir(join(folder, name));
    await writeFile(join(folder, 'blobs/1'), '');
    await symlink('../blobs/1', join(folder, 'snapshot/config.json'));
    await writeFile(join(folder, 'elsewhere/text.txt'), '');
    await symlink('../elsewhere/text.txt', join(folder, 'data/text.txt'));
    const roots = await localRoots(join(folder, 'snapshot'), [join(folder, 'data/te*.txt')], [join(folder, 'data/new')]);
    expect(roots.sort()).toEqual(['blobs', 'data', 'elsewhere', 'snapshot'].map((name) => join(folder, name)));
  } finally {
    await rm(folder, { recursive: true });
  }
});
