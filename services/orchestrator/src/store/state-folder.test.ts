import fs from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { expect, jest, test } from '@jest/globals';
import { StateFolder } from './state-folder.js';

test('a file that could not be made for want of space is made once there is some', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-'));
  const database = new PGlite({
    fs: new StateFolder(folder, (error) => {
      throw error;
    }),
  });
  try {
    await database.exec('CREATE TABLE lines (line text)');
    await database.exec(`INSERT INTO lines SELECT repeat('x', 1000) FROM generate_series(1, 100)`);
    const { rows } = await database.query<{ path: string }>(`SELECT pg_relation_filepath('lines') AS path`);

    const writing = jest.spyOn(fs, 'writeFileSync').mockImplementation((path) => {
      throw Object.assign(new Error(`ENOSPC: no space left on device, open '${path as string}'`), { code: 'ENOSPC' });
    });
    // It makes the map of what is visible to everyone.
    await expect(database.exec('VACUUM lines')).rejects.toThrow(/could not create file .*: No space left on device/);
    writing.mockRestore();

    await database.exec('VACUUM lines');
    expect((await stat(`${join(folder, rows[0]!.path)}_vm`)).size).toBeGreaterThan(0);
  } finally {
    await database.close();
    await rm(folder, { recursive: true });
  }
});
