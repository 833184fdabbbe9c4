import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { resolveInsideRoots } from './allowed-roots.js';

/** A root with a folder and a file in it, and a secret beside the root. */
async function withRoot(use: (root: string, outside: string) => Promise<void>): Promise<void> {
  await withTemporaryFolder(async (folder) => {
    const [root, outside] = [join(folder, 'root'), join(folder, 'root-secret')];
    await mkdir(join(root, 'models'), { recursive: true });
    await mkdir(outside);
    await writeFile(join(root, 'models', 'a.txt'), '');
    await use(root, outside);
  });
}

describe('resolveInsideRoots', () => {
  test('gives the real path of what lies inside a root, there already or not', () =>
    withRoot(async (root, outside) => {
      await symlink(join(root, 'models'), join(root, 'link'));
      await symlink(root, join(outside, 'root-link'));
      expect(await resolveInsideRoots(root, [root])).toBe(root);
      expect(await resolveInsideRoots(join(root, 'link/a.txt'), [outside, root])).toBe(join(root, 'models/a.txt'));
      expect(await resolveInsideRoots(join(root, 'link/new/folder'), [root])).toBe(join(root, 'models/new/folder'));
      expect(await resolveInsideRoots(relative(process.cwd(), join(root, 'models')), [root])).toBe(join(root, 'models'));
      expect(await resolveInsideRoots(join(root, 'models'), [join(outside, 'root-link')])).toBe(join(root, 'models'));
      expect(await resolveInsideRoots(join(root, '..models'), [root])).toBe(join(root, '..models'));
    }));

  test('refuses what lies outside, however it is written', () =>
    withRoot(async (root, outside) => {
      await symlink(outside, join(root, 'away'));
      await symlink(join(outside, 'missing'), join(root, 'dangling'));
      const refused = (path: string, roots = [root]) => expectFailure(() => resolveInsideRoots(path, roots), 'PATH_NOT_ALLOWED', /./);
      await refused(outside);
      await refused(`${root}-secret`);
      await refused(join(root, '..'));
      await refused(`${root}/models/../../root-secret`);
      await refused(join(root, 'away'));
      await refused(join(root, 'away/new'));
      await refused(join(root, 'dangling'));
      await refused(join(root, 'dangling/new'));
      await refused(`${root}/models\0/x`);
      await refused('');
      await refused('/');
      await refused(root, []);
    }));

  test('names the path and the roots', () =>
    withRoot((root, outside) =>
      expectFailure(
        () => resolveInsideRoots(outside, [root]),
        'PATH_NOT_ALLOWED',
        new RegExp(`${outside} lies outside the allowed roots \\(${root}\\)`),
      ),
    ));
});
