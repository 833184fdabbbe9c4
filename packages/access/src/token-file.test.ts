import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { temporaryFolder, type TemporaryFolder } from '../../../tests/support/paths.js';
import { addTokenEntry } from './add-token-entry.js';
import { newToken } from './new-token.js';
import { TokenFile } from './token-file.js';

const ENTRY = newToken({ name: 'alice', tenant: 'research', role: 'user' }).entry;

let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(() => folder[Symbol.asyncDispose]());

describe('a token file', () => {
  test.each<[string, string, RegExp]>([
    ['no JSON', '{"secret-text"', /cannot be read as JSON\.$/],
    ['no list', '{}', /is no list of entries.*the whole/],
    ['a wrong hash', JSON.stringify([{ ...ENTRY, sha256: 'ab' }]), /0\.sha256: must be 64/],
    ['a role of processes', JSON.stringify([{ ...ENTRY, role: 'orchestrator' }]), /0\.role/],
    ['a tenant that is a path', JSON.stringify([ENTRY, { ...ENTRY, tenant: '../x' }]), /1\.tenant/],
    ['a token in it', JSON.stringify([{ ...ENTRY, token: 'secret-text' }]), /is no list of entries/],
    ['one token for two', JSON.stringify([ENTRY, { ...ENTRY, name: 'bob' }]), /same sha256 twice/],
  ])('with %s is refused, and nothing of it shown', async (_what, content, message) => {
    const path = join(folder.path, 'tokens.json');
    await writeFile(path, content);
    const error = await TokenFile.open(path, pino({ level: 'silent' })).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ reason: 'INVALID_REQUEST', message: expect.stringMatching(message) });
    expect((error as Error).message).toContain(path);
    expect((error as Error).message).not.toContain('secret-text');
  });

  test('that is not there is named', async () => {
    await expect(TokenFile.open('/none.json', pino({ level: 'silent' }))).rejects.toMatchObject({
      message: expect.stringContaining('ENOENT'),
    });
  });
});

test('an entry whose file cannot be written is told with the file', async () => {
  await expect(addTokenEntry('/nowhere/tokens.json', ENTRY)).rejects.toMatchObject({
    reason: 'FAILED_PRECONDITION',
    message: '--tokens /nowhere/tokens.json cannot be written; its folder must exist and be writable; no token was made.',
  });
});
