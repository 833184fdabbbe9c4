import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { withTemporaryFolder } from '../../test/support.js';
import { UploadRecord } from './upload-record.js';

const upload = (id: string): { id: string; sha256: string; partBytes: number } => ({ id, sha256: 'ä', partBytes: 16 });

test('cut at any byte it goes on after its last whole line', () =>
  withTemporaryFolder(async (folder) => {
    const path = join(folder, 'uploads.jsonl');
    const record = await UploadRecord.open(path);
    await record.begin('model', upload('first'));
    await record.sent('model', { number: 1, etag: 'one' });
    await record.begin('model', upload('second'));
    await record.sent('model', { number: 2, etag: 'two' });
    const content = await readFile(path);
    for (let length = 0; length < content.byteLength; length++) {
      await writeFile(path, content.subarray(0, length));
      await (await UploadRecord.open(path)).begin('model', upload('third'));
      const resumed = await UploadRecord.open(path);
      await resumed.sent('model', { number: 3, etag: 'three' });
      const found = (await UploadRecord.open(path)).uploads;
      expect(found).toEqual(new Map([['model', { ...upload('third'), parts: new Map([[3, { number: 3, etag: 'three' }]]) }]]));
    }
  }));
