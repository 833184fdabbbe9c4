import { createHash } from 'node:crypto';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadHasher } from '@secateur/core';
import { writeDocuments } from '../../test/data-files.js';
import { expectFailure, modelPath, repository, safetensorsBytes, withTemporaryFolder } from '../../test/support.js';
import { loadTokenizer } from '../tokenizer/tokenizer.js';
import { loadCalibrationTokens, loadEvaluationTokens } from './load-tokens.js';

const opt = { directory: modelPath('books-opt'), vocabularySize: 4096, defaultSequenceLength: 6 };
const defaults = { samples: 0, sequenceLength: 0, seed: 0, sampling: 'documents', textField: 'text' } as const;
const sentence = 'The whale rose again, and the boats pulled away into the fog. ';

/** Rows of tokens as arrays. */
function rows({ ids, samples, sequenceLength }: { ids: Int32Array; samples: number; sequenceLength: number }): number[][] {
  return Array.from({ length: samples }, (_, sample) => [...ids.subarray(sample * sequenceLength, (sample + 1) * sequenceLength)]);
}

function idFile(ids: readonly number[], shape: readonly number[], dtype: 'I32' | 'I64' | 'U8' = 'I32', name = 'input_ids'): Buffer {
  const data = {
    I32: () => new Uint8Array(Int32Array.from(ids).buffer),
    I64: () => new Uint8Array(BigInt64Array.from(ids, BigInt).buffer),
    U8: () => Uint8Array.from(ids),
  }[dtype]();
  return safetensorsBytes({ [name]: { dtype, shape, data_offsets: [0, data.byteLength] } }, data);
}

describe('token ids from a .safetensors file', () => {
  test('are used as they are', async () => {
    const path = join(repository, 'tests/fixtures/calibration/books-opt-calibration.safetensors');
    const all = await loadCalibrationTokens({ ...defaults, paths: [path] }, opt);
    expect([all.samples, all.sequenceLength, all.ids.length, all.ids[0]]).toEqual([128, 256, 128 * 256, 2]);
    expect(all.digest).toBe((await loadHasher()).digest(new Uint8Array(all.ids.buffer)));
    const some = await loadEvaluationTokens({ ...defaults, paths: [path], samples: 5, sequenceLength: 256 }, opt);
    expect(rows(some)).toEqual(rows(all).slice(0, 5));
    expect(some.digest).not.toBe(all.digest);
  });

  test('may be 64 bits wide', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'ids.safetensors');
      await writeFile(path, idFile([1, 2, 3, 4, 5, 6], [2, 3], 'I64'));
      expect(rows(await loadCalibrationTokens({ ...defaults, paths: [path] }, opt))).toEqual([
        [1, 2, 3],
        [4, 5, 6],
      ]);
    }));

  const good = idFile([1, 2, 3, 4, 5, 6], [2, 3]);
  const broken: [string, Buffer, object, RegExp][] = [
    [
      'an id outside the vocabulary',
      idFile([1, 2, 3, 4, 4096, 6], [2, 3]),
      {},
      /id 4096 at sample 1, position 1 is outside the model's vocabulary of 4096/,
    ],
    ['a negative id', idFile([1, -2, 3], [1, 3]), {}, /id -2 at sample 0, position 1/],
    ['an id above 32 bits', idFile([1, 2 ** 32 + 1], [1, 2], 'I64'), {}, /at sample 0, position 1/],
    ['too few samples', good, { samples: 3 }, /has 2 samples, 3 were asked for/],
    ['another sequence length', good, { sequenceLength: 2 }, /has 3 tokens per sample, 2 were asked for/],
    ['another name', idFile([1], [1, 1], 'I32', 'ids'), {}, /it has no tensor input_ids/],
    ['another type', idFile([1], [1, 1], 'U8'), {}, /input_ids is U8; it must be I32 or I64/],
    ['one dimension', idFile([1, 2], [2]), {}, /has the shape \[2\]; it must be \[samples, tokens\]/],
    ['no samples', idFile([], [0, 4]), {}, /has the shape \[0, 4\]/],
    ['a broken file', good.subarray(0, -1), {}, /tensor "input_ids" ends at byte/],
  ];
  test.each(broken)('with %s are refused', (_, content, options, message) =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'ids.safetensors');
      await writeFile(path, content);
      for (const load of [loadCalibrationTokens, loadEvaluationTokens]) {
        await expectFailure(
          () => load({ ...defaults, paths: [path], ...options }, opt),
          'INVALID_DATA',
          new RegExp(`${path}: .*${message.source}`),
        );
      }
    }),
  );
});

describe('calibration text', () => {
  test('gives random windows of the document, the same for the same seed', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'text.txt');
      await writeFile(path, sentence.repeat(20));
      const document = [...(await loadTokenizer(opt.directory)).encode(sentence.repeat(20))].join();
      const first = await loadCalibrationTokens({ ...defaults, paths: [path], samples: 30, sequenceLength: 9, seed: 7 }, opt);
      expect([first.samples, first.sequenceLength]).toEqual([30, 9]);
      for (const row of rows(first)) expect(`,${document},`).toContain(`,${row.join()},`);
      expect(new Set(rows(first).map((row) => row.join())).size).toBeGreaterThan(10);
      const again = await loadCalibrationTokens({ ...defaults, paths: [path], samples: 30, sequenceLength: 9, seed: 7 }, opt);
      expect(again).toEqual(first);
      const other = await loadCalibrationTokens({ ...defaults, paths: [path], samples: 30, sequenceLength: 9, seed: 8 }, opt);
      expect(other.digest).not.toBe(first.digest);
      expect(await loadCalibrationTokens({ ...defaults, paths: [path], samples: 0, sequenceLength: 0, seed: 7 }, opt)).toMatchObject({
        samples: 256,
        sequenceLength: 6,
      });
    }));

  test('takes only documents that are longer than a sample', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'text.jsonl');
      const lines = ['short', sentence, 'fog', `${sentence}${sentence}`].map((text) => JSON.stringify({ text, source: 'test' }));
      await writeFile(path, `${lines.join('\r\n')}\n\n`);
      const tokenizer = await loadTokenizer(opt.directory);
      const documents = [sentence, `${sentence}${sentence}`].map((text) => `,${tokenizer.encode(text).join()},`);
      const { ids, samples, sequenceLength } = await loadCalibrationTokens(
        { ...defaults, paths: [path], samples: 40, sequenceLength: 12, seed: 1 },
        opt,
      );
      for (const row of rows({ ids, samples, sequenceLength }))
        expect(documents.some((document) => document.includes(`,${row.join()},`))).toBe(true);
    }));

  test('that is too short tells how many tokens there are and how many are needed', () =>
    withTemporaryFolder(async (folder) => {
      const [text, lines] = [join(folder, 'a.txt'), join(folder, 'a.jsonl')];
      await writeFile(text, sentence);
      await writeFile(lines, `${JSON.stringify({ text: 'fog' })}\n${JSON.stringify({ text: sentence })}\n`);
      const tokens = (await loadTokenizer(opt.directory)).encode(sentence).length;
      const load = (path: string, sequenceLength: number) =>
        loadCalibrationTokens({ ...defaults, paths: [path], samples: 2, sequenceLength, seed: 0 }, opt);
      await expectFailure(
        () => load(text, tokens),
        'INVALID_DATA',
        new RegExp(`a.txt: its text has ${tokens} tokens, .* at least ${tokens + 1}; 1 are missing. .*--seq-len ${tokens - 1}`),
      );
      await expectFailure(
        () => load(lines, 500),
        'INVALID_DATA',
        new RegExp(`the longest of its 2 documents has ${tokens} tokens, .* at least 501;`),
      );
      expect((await load(lines, tokens - 1)).samples).toBe(2);
      await writeFile(lines, '\n');
      await expectFailure(() => load(lines, 5), 'INVALID_DATA', /it holds no document/);
    }));

  test('is tokenised beside other work and can be cancelled', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a.txt');
      await writeFile(path, sentence.repeat(30_000));
      const cancellation = new AbortController();
      const loading = loadCalibrationTokens({ ...defaults, paths: [path] }, opt, { signal: cancellation.signal });
      const beats = setInterval(() => (count += 1), 5);
      let count = 0;
      expect((await loading).samples).toBe(256);
      clearInterval(beats);
      // Two MB take about two seconds; without a thread of its own there would be next to none.
      expect(count).toBeGreaterThan(20);
      const second = loadCalibrationTokens({ ...defaults, paths: [path] }, opt, { signal: cancellation.signal });
      setTimeout(() => cancellation.abort(), 100);
      await expectFailure(() => second, 'CANCELLED', /./);
      await expectFailure(
        () => loadCalibrationTokens({ ...defaults, paths: [path] }, opt, { signal: cancellation.signal }),
        'CANCELLED',
        /./,
      );
    }));

  test('needs a tokenizer', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a.txt');
      await writeFile(path, sentence);
      await expectFailure(
        () => loadCalibrationTokens({ ...defaults, paths: [path] }, { ...opt, directory: folder }),
        'INVALID_CHECKPOINT',
        /neither tokenizer.json/,
      );
    }));

  test('of another tokenizer than the model is refused', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a.txt');
      await writeFile(path, sentence);
      await expectFailure(
        () => loadCalibrationTokens({ ...defaults, paths: [path], samples: 1 }, { ...opt, vocabularySize: 100 }),
        'INVALID_DATA',
        /vocabulary of 100/,
      );
    }));

  test.each([
    ['{"text": "a"', /a.jsonl, line 2: it is not valid JSON/],
    ['{"body": "a"}', /a.jsonl, line 2: it has no field "text"/],
    ['{"text": 1}', /a.jsonl, line 2: the field "text" is not a string/],
    ['"text"', /line 2: it has no field "text"/],
    ['null', /line 2: it has no field "text"/],
  ])('with the line %s is refused by file and line', (line, message) =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a.jsonl');
      await writeFile(path, `${JSON.stringify({ text: sentence })}\n${line}\n`);
      await expectFailure(() => loadCalibrationTokens({ ...defaults, paths: [path], samples: 1 }, opt), 'INVALID_DATA', message);
    }),
  );

  test('is read line by line, across the parts that a file is read in', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a.jsonl');
      const filler = `${JSON.stringify({ text: 'x'.repeat(700_000) })}\n`;
      const last = JSON.stringify({ text: sentence, fog: 'é'.repeat(700_000) });
      await writeFile(path, `${filler}${filler}${filler}${last}\n{`);
      await expectFailure(
        () => loadCalibrationTokens({ ...defaults, paths: [path], samples: 1 }, opt),
        'INVALID_DATA',
        /line 5: it is not valid JSON/,
      );
      await writeFile(path, `${JSON.stringify({ text: 'fog', padding: 'é'.repeat(1_000_000) })}\n${last}`);
      const { ids } = await loadCalibrationTokens({ ...defaults, paths: [path], samples: 1, sequenceLength: 15, seed: 0 }, opt);
      expect(`,${(await loadTokenizer(opt.directory)).encode(sentence).join()},`).toContain(`,${ids.join()},`);
    }));

  test('that is not UTF-8, too large, of another kind or missing is refused', () =>
    withTemporaryFolder(async (folder) => {
      const load = (name: string, content?: Uint8Array) => async (): Promise<unknown> => {
        if (content !== undefined) await writeFile(join(folder, name), content);
        return loadCalibrationTokens({ ...defaults, paths: [join(folder, name)], samples: 1 }, opt);
      };
      await expectFailure(load('a.txt', Buffer.from([0x61, 0xff])), 'INVALID_DATA', /a.txt: it is not valid UTF-8/);
      await expectFailure(load('a.jsonl', Buffer.from([0x22, 0xff, 0x22])), 'INVALID_DATA', /a.jsonl, line 1: it is not valid UTF-8/);
      await expectFailure(
        load('a.csv', Buffer.from('a')),
        'INVALID_DATA',
        /must be a .txt, .raw, .jsonl or .parquet file, also with .gz or .zst, or a .safetensors file/,
      );
      await expectFailure(load('missing.txt'), 'NOT_FOUND', /missing.txt/);
      await truncate(join(folder, 'a.txt'), (64 << 20) + 1);
      await expectFailure(load('a.txt'), 'INVALID_DATA', /67108865 bytes is above the limit of 67108864; split it into documents/);
      await truncate(join(folder, 'a.jsonl'), (64 << 20) + 1);
      await expectFailure(load('a.jsonl'), 'INVALID_DATA', /line 1: a text of \d+ bytes is above the limit/);
    }));
});

describe('several files', () => {
  test('give the windows of one file with the same documents, whatever their order and form', () =>
    withTemporaryFolder(async (folder) => {
      const texts = Array.from({ length: 9 }, (_, index) => sentence.repeat(1 + (index % 3)));
      const load = (sampling: 'documents' | 'concatenated', ...names: readonly string[]) =>
        loadCalibrationTokens(
          { paths: names.map((name) => join(folder, name)), samples: 20, sequenceLength: 12, seed: 3, sampling, textField: 'text' },
          opt,
        );
      await writeDocuments(folder, 'all.jsonl', texts);
      await writeDocuments(folder, '1.parquet', texts.slice(0, 4));
      await writeDocuments(folder, '2.jsonl.gz', texts.slice(4, 6));
      await writeDocuments(folder, '3.parquet.zst', texts.slice(6));
      for (const sampling of ['documents', 'concatenated'] as const) {
        const whole = await load(sampling, 'all.jsonl');
        for (const names of [['[0-9].*'], ['3*', '1.parquet', '2.jsonl.gz'], ['2*', '1*', '3*', '[0-9].parquet*']]) {
          const parts = await load(sampling, ...names);
          expect(parts).toEqual({ ...whole, files: ['1.parquet', '2.jsonl.gz', '3.parquet.zst'].map((name) => join(folder, name)) });
        }
        expect(whole.sha256).toBe(createHash('sha256').update(new Uint8Array(whole.ids.buffer)).digest('hex'));
        if (sampling === 'concatenated') expect(whole.documents).toBe(9);
      }
    }));

  test('of token ids, or of ids and text, are refused', () =>
    withTemporaryFolder(async (folder) => {
      for (const name of ['a.safetensors', 'b.safetensors']) await writeFile(join(folder, name), idFile([1, 2], [1, 2]));
      await writeDocuments(folder, 'c.txt', [sentence]);
      const load = (pattern: string) => () => loadCalibrationTokens({ ...defaults, paths: [join(folder, pattern)] }, opt);
      await expectFailure(load('*.safetensors'), 'INVALID_DATA', /a.safetensors, .*b.safetensors: token ids come in one .safetensors file/);
      await expectFailure(load('[ac].*'), 'INVALID_DATA', /a.safetensors: token ids and text cannot be mixed/);
      await expectFailure(load('*.nothing'), 'NOT_FOUND', /No file matches .*\*.nothing/);
    }));
});

describe('concatenated text', () => {
  test('is joined by a space and needs one token more than a sample', () =>
    withTemporaryFolder(async (folder) => {
      const path = await writeDocuments(folder, 'a.jsonl', ['The whale rose', 'and the boats', 'pulled away.']);
      const tokens = (await loadTokenizer(opt.directory)).encode('The whale rose and the boats pulled away.');
      const load = (sequenceLength: number) =>
        loadCalibrationTokens({ ...defaults, paths: [path], samples: 8, sequenceLength, sampling: 'concatenated' }, opt);
      const found = await load(tokens.length - 1);
      // The last token is never drawn.
      for (const row of rows(found)) expect(row).toEqual([...tokens.slice(0, -1)]);
      expect(found.documents).toBe(3);
      await expectFailure(
        () => load(tokens.length + 5),
        'INVALID_DATA',
        new RegExp(
          `its 3 documents have ${tokens.length} tokens together, .* 6 are missing. Give more text, .*--seq-len ${tokens.length - 1}\\)`,
        ),
      );
    }));
});

describe('evaluation text', () => {
  test('gives every whole window, in order', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'text.txt');
      await writeFile(path, sentence.repeat(5));
      const tokens = [...(await loadTokenizer(opt.directory)).encode(sentence.repeat(5))];
      const all = await loadEvaluationTokens({ ...defaults, paths: [path], sequenceLength: 8 }, opt);
      expect([...all.ids]).toEqual(tokens.slice(0, Math.floor(tokens.length / 8) * 8));
      const two = await loadEvaluationTokens({ ...defaults, paths: [path], samples: 2, sequenceLength: 8 }, opt);
      expect([...two.ids]).toEqual(tokens.slice(0, 16));
      const message = new RegExp(
        `its text has ${tokens.length} tokens, 1000 samples of 8 need 8000; ${8000 - tokens.length} are missing. .*--samples ${Math.floor(tokens.length / 8)}`,
      );
      await expectFailure(
        () => loadEvaluationTokens({ ...defaults, paths: [path], samples: 1000, sequenceLength: 8 }, opt),
        'INVALID_DATA',
        message,
      );
      await expectFailure(
        () => loadEvaluationTokens({ ...defaults, paths: [path], sequenceLength: 500 }, opt),
        'INVALID_DATA',
        /1 samples of 500 need 500/,
      );
    }));

  test('gives windows that overlap when they are less than a window apart', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'text.txt');
      await writeFile(path, sentence.repeat(5));
      const tokens = [...(await loadTokenizer(opt.directory)).encode(sentence.repeat(5))];
      const source = { ...defaults, paths: [path], sequenceLength: 8 };
      const all = await loadEvaluationTokens(source, opt, { stride: 3 });
      expect(all.samples).toBe(Math.floor((tokens.length - 8) / 3) + 1);
      expect(rows(all)).toEqual(rows(all).map((_, window) => tokens.slice(3 * window, 3 * window + 8)));
      expect(await loadEvaluationTokens(source, opt, { stride: 8 })).toEqual(await loadEvaluationTokens(source, opt));
      const two = await loadEvaluationTokens({ ...source, samples: 2 }, opt, { stride: 3 });
      expect(rows(two)).toEqual(rows(all).slice(0, 2));
      await expectFailure(() => loadEvaluationTokens({ ...source, samples: 100 }, opt, { stride: 3 }), 'INVALID_DATA', /need 305/);
      await expectFailure(() => loadEvaluationTokens(source, opt, { stride: 9 }), 'INVALID_REQUEST', /stride of 9 would skip text/);
      const ids = join(repository, 'tests/fixtures/calibration/books-opt-eval.safetensors');
      await expectFailure(
        () => loadEvaluationTokens({ ...defaults, paths: [ids] }, opt, { stride: 9 }),
        'INVALID_REQUEST',
        /a stride is for text/,
      );
    }));

  test('of WikiText is joined as published perplexities have it', () =>
    withTemporaryFolder(async (folder) => {
      const text = await writeDocuments(folder, 'joined.txt', [`\n\n = Fog = \n\n\n\n\n ${sentence} \n`]);
      const joined = await loadEvaluationTokens({ ...defaults, paths: [text] }, opt);
      for (const name of ['wiki.test.raw', 'wiki.test.raw.gz', 'wiki.test.raw.zst']) {
        const path = await writeDocuments(folder, name, [` \n = Fog = \n \n ${sentence} \n`]);
        expect(await loadEvaluationTokens({ ...defaults, paths: [path] }, opt)).toEqual({ ...joined, files: [path] });
      }
    }));

  test('of several documents is read as one, with a blank line between them', () =>
    withTemporaryFolder(async (folder) => {
      const [text, lines] = [join(folder, 'a.txt'), join(folder, 'a.jsonl')];
      await writeFile(text, `${sentence}\n\n${sentence}`);
      await writeFile(lines, `${JSON.stringify({ text: sentence })}\n${JSON.stringify({ text: sentence })}\n`);
      const [one, two] = await Promise.all([text, lines].map((path) => loadEvaluationTokens({ ...defaults, paths: [path] }, opt)));
      expect(two?.ids).toEqual(one?.ids);
      expect([one?.documents, two?.documents]).toEqual([1, 2]);
    }));

  test('of several files is one text, whatever their form', () =>
    withTemporaryFolder(async (folder) => {
      const whole = await writeDocuments(folder, 'whole.txt', [`${sentence}\n\n${sentence}\n\n${sentence}`]);
      for (const name of ['1.txt.gz', '2.raw', '3.parquet']) await writeDocuments(folder, name, [sentence]);
      const source = { ...defaults, sequenceLength: 8 };
      const one = await loadEvaluationTokens({ ...source, paths: [whole] }, opt, { stride: 3 });
      const parts = await loadEvaluationTokens({ ...source, paths: [join(folder, '[0-9].*')] }, opt, { stride: 3 });
      expect(parts).toEqual({
        ...one,
        files: ['1.txt.gz', '2.raw', '3.parquet'].map((name) => join(folder, name)),
        documents: 3,
      });
    }));
});

test.each([
  [{ samples: -1 }, /samples is -1/],
  [{ samples: 1.5 }, /samples is 1.5/],
  [{ seed: 2 ** 53 }, /seed is/],
  [{ sequenceLength: 1 }, /1 tokens is too short/],
  [{ samples: 2 ** 20, sequenceLength: 2 ** 20 }, /above the limit/],
])('the options %p are refused', (options, message) =>
  withTemporaryFolder(async (folder) => {
    const path = join(folder, 'text.txt');
    await writeFile(path, 'Call me Ishmael.');
    await expectFailure(() => loadCalibrationTokens({ ...defaults, paths: [path], ...options }, opt), 'INVALID_REQUEST', message);
  }),
);
