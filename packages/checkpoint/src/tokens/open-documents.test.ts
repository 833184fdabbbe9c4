import { execFile } from 'node:child_process';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import fc from 'fast-check';
import {
  DOCUMENT_FORMATS,
  documentBytes,
  PARQUET_CODECS,
  parquetBytes,
  writeDocuments,
  type ParquetOptions,
} from '../../test/data-files.js';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { drawFromJoined } from './draw-from-joined.js';
import { drawWindows } from './draw-windows.js';
import { openDocuments } from './open-documents.js';

const options = { textField: 'text' };
const sentences = ['The whale rose again.', 'Fog – and the boats pulled away 🐳', '', 'Call me Ishmael. '.repeat(40), 'é\n\n"\\'];
const settings = { numRuns: 25, seed: 20250516 };

async function readAll(paths: readonly string[], given = options): Promise<string[]> {
  const documents = await openDocuments(paths, given);
  try {
    const texts: string[] = [];
    for (let index = 0; index < documents.count; index++) texts.push(await documents.read(index));
    return texts;
  } finally {
    await documents.close();
  }
}

/** Windows of a tokenizer that makes every UTF-16 unit a token. */
async function drawAll(paths: readonly string[], seed: number): Promise<number[][]> {
  const documents = await openDocuments(paths, options);
  const encode = (text: string): Promise<Int32Array> => Promise.resolve(Int32Array.from(text, (letter) => letter.charCodeAt(0)));
  try {
    const read = async (index: number): Promise<Int32Array> => encode(await documents.read(index));
    const single = await drawWindows({ name: 'all', count: documents.count, read }, 5, 8, seed);
    const joined = await drawFromJoined({ name: 'all', documents, encode }, 5, 8, seed);
    return [[...single.ids], [...joined.ids]];
  } finally {
    await documents.close();
  }
}

describe('the documents of a file', () => {
  test.each(DOCUMENT_FORMATS)('in %s', (format) =>
    withTemporaryFolder(async (folder) => {
      expect(await readAll([await writeDocuments(folder, `a${format}`, sentences)])).toEqual(sentences);
      expect(await readAll([await writeDocuments(folder, `none${format}`, [])])).toEqual([]);
    }),
  );

  test.each(['.txt', '.txt.gz', '.txt.zst', '.TXT.GZ'])('in %s are one', (format) =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, `a.b${format}`);
      await writeFile(path, documentBytes(`a${format.toLowerCase()}`, sentences));
      expect(await readAll([path])).toEqual([sentences.join('')]);
    }),
  );

  test.each(PARQUET_CODECS)('in a Parquet file packed by %s', (codec) =>
    withTemporaryFolder(async (folder) => {
      for (const rowGroupSize of [1, 2, 100]) {
        await writeFile(join(folder, 'a.parquet'), parquetBytes(sentences, { codec, rowGroupSize }));
        expect(await readAll([join(folder, 'a.parquet')])).toEqual(sentences);
      }
    }),
  );

  test('lie in the field that is named', () =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, 'a.jsonl'), '{"content":"a","text":1}');
      await writeFile(join(folder, 'b.parquet'), parquetBytes(['b'], { column: 'content' }));
      expect(await readAll([join(folder, 'a.jsonl'), join(folder, 'b.parquet')], { textField: 'content' })).toEqual(['a', 'b']);
    }));

  test('follow those of the file before', () =>
    withTemporaryFolder(async (folder) => {
      const names = ['a.txt', 'b.jsonl.gz', 'c.parquet', 'd.jsonl', 'e.parquet.zst'];
      const paths = await Promise.all(names.map((name) => writeDocuments(folder, name, name === 'd.jsonl' ? [] : [name, `${name}!`])));
      expect(await readAll(paths)).toEqual([
        'a.txta.txt!',
        ...['b.jsonl.gz', 'c.parquet', 'e.parquet.zst'].flatMap((name) => [name, `${name}!`]),
      ]);
    }));
});

test('the same documents give the same windows, however they are stored', () =>
  withTemporaryFolder((folder) =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme', maxLength: 30 }), { maxLength: 12 }),
        fc.string({ unit: 'grapheme', minLength: 9, maxLength: 60 }),
        fc.nat(),
        async (texts, long, seed) => {
          const all = [...texts, long];
          const [expected, ...others] = await Promise.all(
            DOCUMENT_FORMATS.map(async (format) => drawAll([await writeDocuments(folder, `a${format}`, all)], seed)),
          );
          for (const windows of others) expect(windows).toEqual(expected);
          const half = all.length >> 1;
          const parts = [
            await writeDocuments(folder, '1.parquet', all.slice(0, half)),
            await writeDocuments(folder, '2.jsonl.zst', all.slice(half)),
          ];
          expect(await drawAll(parts, seed)).toEqual(expected);
        },
      ),
      { ...settings, numRuns: 5 },
    ),
  ));

describe('a broken file', () => {
  const whole = ['.jsonl.gz', '.jsonl.zst', '.txt.gz', '.txt.zst', '.parquet', '.parquet.gz', '.parquet.zst'];

  test.each(whole)('that is cut is refused by name: %s', (format) =>
    withTemporaryFolder((folder) =>
      fc.assert(
        fc.asyncProperty(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), async (share) => {
          const path = await writeDocuments(folder, `cut${format}`, sentences);
          const { byteLength } = await readFile(path);
          await truncate(path, Math.floor(share * byteLength));
          await expectFailure(() => readAll([path]), 'INVALID_DATA', /cut\.[a-z.]+: /);
        }),
        { ...settings, numRuns: format.includes('parquet') ? 4 : settings.numRuns },
      ),
    ),
  );

  test.each([...whole, '.jsonl', '.txt'])('with another byte is read or refused by name, and nothing else: %s', (format) =>
    withTemporaryFolder((folder) =>
      fc.assert(
        fc.asyncProperty(
          fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
          fc.integer({ min: 1, max: 255 }),
          async (share, change) => {
            const path = await writeDocuments(folder, `odd${format}`, sentences);
            const content = await readFile(path);
            content[Math.floor(share * content.byteLength)]! ^= change;
            await writeFile(path, content);
            const outcome = await readAll([path]).catch((error: unknown) => error);
            if (Array.isArray(outcome)) return;
            expect(outcome).toBeInstanceOf(SecateurError);
            expect(outcome).toMatchObject({ reason: 'INVALID_DATA', message: expect.stringContaining(path) });
          },
        ),
        // Each run of Parquet starts a process.
        { ...settings, numRuns: format.includes('parquet') ? 5 : 60 },
      ),
    ),
  );

  test.each<[string, string, RegExp]>([
    ['no gzip', 'a.txt.gz', /a.txt.gz: it is not a whole gzip file: incorrect header check/],
    ['no zstd', 'a.jsonl.zst', /a.jsonl.zst: it is not a whole zstd file: there is no frame/],
    ['no Parquet', 'a.parquet', /a.parquet: it does not end with PAR1/],
  ])('is %s at all', (_, name, message) =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, name), 'this is text');
      await expectFailure(() => readAll([join(folder, name)]), 'INVALID_DATA', message);
      await writeFile(join(folder, name), '');
      await expectFailure(() => readAll([join(folder, name)]), 'INVALID_DATA', new RegExp(`${name}: `));
    }),
  );

  const columns: [string, ParquetOptions, readonly (string | null)[], RegExp][] = [
    ['no such column', { column: 'body' }, ['a'], /it has no column "text" but id, body; name the one .*--text-field/],
    ['a row without text', {}, ['a', null], /a.parquet, row 1: the column "text" holds no text/],
  ];
  test.each(columns)('is a Parquet file with %s', (_, given, texts, message) =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, 'a.parquet'), parquetBytes(texts, given));
      await expectFailure(() => readAll([join(folder, 'a.parquet')]), 'INVALID_DATA', message);
    }),
  );

  test('is a Parquet file whose column holds no text', () =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, 'a.parquet'), parquetBytes(['a']));
      await expectFailure(() => readAll([join(folder, 'a.parquet')], { textField: 'id' }), 'INVALID_DATA', /"id" is no column of text/);
    }));
});

test.each([
  ['deep', '['.repeat(1 << 22)],
  ['numerous', `{"text":"a","b":[${'{},'.repeat(1 << 21)}{}]}`],
])('a line of %s values is refused before they take memory', (_, line) =>
  withTemporaryFolder(async (folder) => {
    const path = join(folder, 'bomb.jsonl');
    await writeFile(path, `{"text":"a"}\n${line}\n`);
    await expectFailure(() => readAll([path]), 'INVALID_DATA', /bomb\.jsonl, line 2: .*(nested deeper|more than 1048576 values)/);
  }),
);

test('documents are found without the heap', () =>
  withTemporaryFolder(async (folder) => {
    const path = join(folder, 'short.jsonl');
    await writeFile(path, '{"text":""}\n'.repeat(1 << 20));
    const program = `
      import { openDocuments } from ${JSON.stringify(new URL('../../dist/tokens/open-documents.js', import.meta.url).href)};
      const documents = await openDocuments([${JSON.stringify(path)}], { textField: 'text' });
      console.log(documents.count);
      await documents.close();
    `;
    const { stdout } = await promisify(execFile)(process.execPath, ['--max-old-space-size=48', '--input-type=module', '--eval', program]);
    expect(Number(stdout)).toBe(1 << 20);
  }));

test('there is a limit to the documents of all files together', () =>
  withTemporaryFolder(async (folder) => {
    const rows = 1 << 22;
    const bytes = parquetBytes(new Array<string>(rows).fill(''), { rowGroupSize: rows });
    const paths = ['a', 'b', 'c', 'd', 'e'].map((name) => join(folder, `${name}.parquet`));
    for (const path of paths) await writeFile(path, bytes);
    await expectFailure(
      async () => (await openDocuments(paths, options)).close(),
      'INVALID_DATA',
      /e\.parquet: the data has more than 16777216 documents/,
    );
  }));
