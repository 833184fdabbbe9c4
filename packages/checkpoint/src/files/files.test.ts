import { execFile } from 'node:child_process';
import { mkdir, open, readdir, readFile, symlink, truncate, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { toFileError } from './file-errors.js';
import { InputFile } from './input-file.js';
import { readSmallFile } from './open-input.js';
import { OutputFile } from './output-file.js';
import { publishDirectory } from './publish-directory.js';

describe('InputFile', () => {
  test('reads ranges and notices a file that was cut', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a');
      await writeFile(path, '0123456789');
      const file = await InputFile.open(path);
      const target = Buffer.alloc(3);
      await file.readInto(target, 4);
      expect(target.toString()).toBe('456');
      await truncate(path, 5);
      await expectFailure(() => file.readInto(target, 4), 'FAILED_PRECONDITION', /ended at byte 5/);
      await file.close();
    }));

  test('stops when cancelled', () =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, 'a'), 'x');
      const file = await InputFile.open(join(folder, 'a'));
      await expectFailure(() => file.readInto(Buffer.alloc(1), 0, AbortSignal.abort()), 'CANCELLED', /./);
      await file.close();
    }));

  test('refuses everything that is no regular file, without waiting', () =>
    withTemporaryFolder(async (folder) => {
      await promisify(execFile)('mkfifo', [join(folder, 'pipe')]);
      await symlink(join(folder, 'pipe'), join(folder, 'link'));
      for (const name of ['pipe', 'link', '.']) {
        await expectFailure(() => InputFile.open(join(folder, name)), 'FAILED_PRECONDITION', /not a regular file/);
      }
      await expectFailure(() => InputFile.open('/dev/zero'), 'FAILED_PRECONDITION', /not a regular file/);
      await expectFailure(() => InputFile.open(join(folder, 'missing')), 'NOT_FOUND', /missing: it does not exist \(ENOENT\)/);
    }));

  test('follows links inside the allowed roots only', () =>
    withTemporaryFolder(async (folder) => {
      await mkdir(join(folder, 'root/blobs'), { recursive: true });
      await writeFile(join(folder, 'root/blobs/1'), 'inside');
      await writeFile(join(folder, 'secret'), 'outside');
      await symlink('blobs/1', join(folder, 'root/a'));
      await symlink('../secret', join(folder, 'root/b'));
      const options = { allowedRoots: [join(folder, 'root')] };
      const refuse = (): SecateurError => new SecateurError('INTERNAL', '');
      expect((await readSmallFile(join(folder, 'root/a'), 100, options, refuse)).toString()).toBe('inside');
      await expectFailure(() => readSmallFile(join(folder, 'root/b'), 100, options, refuse), 'PATH_NOT_ALLOWED', /secret/);
    }));
});

describe('OutputFile', () => {
  test('writes more than the system takes at once', () =>
    withTemporaryFolder(async (folder) => {
      const bytes = 2 ** 31 + 3;
      const file = await OutputFile.create(join(folder, 'a'), bytes);
      // Of memory that nobody wrote to there is one page only.
      const large = Buffer.alloc(bytes);
      large[bytes - 1] = 7;
      await file.write(large, 0);
      const end = Buffer.alloc(2);
      await file.readInto(end, bytes - 2);
      await file.close();
      expect([...end]).toEqual([0, 7]);
    }));

  test('a full disk is RESOURCE_EXHAUSTED and names the path', async () => {
    // Every write to /dev/full fails as on a full disk; it has no size, so it cannot be opened as an output file is.
    const OutputFileOf = OutputFile as unknown as new (path: string, handle: FileHandle) => OutputFile;
    const file = new OutputFileOf('/out/model.safetensors', await open('/dev/full', 'r+'));
    await expectFailure(
      () => file.write(Buffer.alloc(10), 0),
      'RESOURCE_EXHAUSTED',
      /^Cannot write \/out\/model.safetensors: no space is left on the device \(ENOSPC\)\. Free some space and try again\.$/,
    );
    await file.close();
  });

  test('never replaces a file and only reopens one of the same size', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a');
      const file = await OutputFile.create(path, 10);
      await file.write(Buffer.from('abc'), 7);
      await file.sync();
      await file.close();
      expect(await readFile(path, 'latin1')).toBe('\0\0\0\0\0\0\0abc');
      await expectFailure(() => OutputFile.create(path, 10), 'ALREADY_EXISTS', /EEXIST/);
      await expectFailure(() => OutputFile.reopen(path, 11), 'FAILED_PRECONDITION', /10 bytes, 11 are expected/);
      await expectFailure(() => OutputFile.reopen(join(folder, 'b'), 11), 'NOT_FOUND', /ENOENT/);
    }));
});

test.each([
  ['EROFS', 'FAILED_PRECONDITION', 'the file system is read-only'],
  ['EIO', 'FAILED_PRECONDITION', 'the device failed'],
  ['EDQUOT', 'RESOURCE_EXHAUSTED', 'the disk quota'],
  ['EMFILE', 'RESOURCE_EXHAUSTED', 'too many files'],
  ['EWHATEVER', 'FAILED_PRECONDITION', 'the operation failed'],
])('%s becomes %s', (code, reason, text) => {
  const error = toFileError('write', '/out/a', Object.assign(new Error('low level'), { code }));
  expect(error.reason).toBe(reason);
  expect(error.message).toContain(`Cannot write /out/a: ${text}`);
  expect(error.message).toContain(code);
});

test('an error that the user can mend says how', () => {
  const error = toFileError('read', '/in/a', Object.assign(new Error('low level'), { code: 'EACCES' }));
  expect(error.message).toBe(
    'Cannot read /in/a: permission is denied (EACCES). Let the user that this process runs as have access, or choose another place.',
  );
});

test('an error that is not of the file system stays what it is', () => {
  const defect = new TypeError('defect');
  expect(() => toFileError('write', '/out/a', defect)).toThrow(defect);
});

describe('publishDirectory', () => {
  test('renames a folder with all it holds', () =>
    withTemporaryFolder(async (folder) => {
      await mkdir(join(folder, 'out.partial'));
      await writeFile(join(folder, 'out.partial/a'), '');
      await publishDirectory(join(folder, 'out.partial'), join(folder, 'out'));
      expect(await readdir(folder)).toEqual(['out']);
      expect(await readdir(join(folder, 'out'))).toEqual(['a']);
    }));

  test('never replaces anything', () =>
    withTemporaryFolder(async (folder) => {
      await mkdir(join(folder, 'out.partial'));
      await mkdir(join(folder, 'empty'));
      await writeFile(join(folder, 'file'), '');
      await symlink('nowhere', join(folder, 'link'));
      for (const name of ['empty', 'file', 'link']) {
        await expectFailure(
          () => publishDirectory(join(folder, 'out.partial'), join(folder, name)),
          'ALREADY_EXISTS',
          new RegExp(`${name} exists`),
        );
      }
      expect(await readdir(folder)).toContain('out.partial');
    }));
});
