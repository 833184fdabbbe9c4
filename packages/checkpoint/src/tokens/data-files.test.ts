import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { expandDataPath, findDataFiles } from './data-files.js';

async function withFiles(use: (folder: string) => Promise<void>): Promise<void> {
  await withTemporaryFolder(async (folder) => {
    await mkdir(join(folder, 'data/deep'), { recursive: true });
    for (const name of ['a10.jsonl', 'a9.jsonl', 'B.jsonl', 'deep/c.jsonl', '[1].txt', '.hidden.jsonl'])
      await writeFile(join(folder, 'data', name), '');
    await writeFile(join(folder, 'secret.jsonl'), '');
    await use(folder);
  });
}

test('files are sorted by name, each once', () =>
  withFiles(async (folder) => {
    const find = async (...patterns: string[]): Promise<string[]> =>
      (await findDataFiles(patterns.map((pattern) => join(folder, 'data', pattern)))).map((file) =>
        file.slice(folder.length + '/data/'.length),
      );
    expect(await find('*.jsonl')).toEqual(['B.jsonl', 'a10.jsonl', 'a9.jsonl']);
    expect(await find('a9.jsonl', '**/*.jsonl')).toEqual(['B.jsonl', 'a10.jsonl', 'a9.jsonl', 'deep/c.jsonl']);
    expect(await find('{B,a9}.jsonl')).toEqual(['B.jsonl', 'a9.jsonl']);
  }));

test('what exists is no glob', () =>
  withFiles(async (folder) => {
    expect(await expandDataPath(join(folder, 'data/[1].txt'))).toEqual({
      folder: join(folder, 'data'),
      files: [join(folder, 'data/[1].txt')],
    });
    await mkdir(join(folder, 'x{1,2}'));
    await writeFile(join(folder, 'x{1,2}/a.txt'), '');
    expect(await findDataFiles([join(folder, 'x{1,2}/*.txt')])).toEqual([join(folder, 'x{1,2}/a.txt')]);
  }));

test('a glob stays in its folder: links to files are files, links to folders are not entered', () =>
  withFiles(async (folder) => {
    await symlink('../secret.jsonl', join(folder, 'data/link.jsonl'));
    await symlink('..', join(folder, 'data/up'));
    const files = await findDataFiles([join(folder, 'data/**/*.jsonl')]);
    expect(files).toContain(join(folder, 'data/link.jsonl'));
    expect(files.filter((file) => file.includes('secret'))).toEqual([]);
    await expectFailure(() => findDataFiles([`${folder}/data/{..,deep}/secret.jsonl`]), 'NOT_FOUND', /No file matches/);
  }));

test('what is not there is named', () =>
  withFiles(async (folder) => {
    await expectFailure(() => findDataFiles([join(folder, 'none.txt')]), 'NOT_FOUND', /none.txt: it does not exist/);
    await expectFailure(() => findDataFiles([join(folder, 'none/*.txt')]), 'NOT_FOUND', /No file matches .*none/);
  }));
