import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { expectFailure, modelPath, repository, withTemporaryFolder } from '../../test/support.js';
import { openCheckpoint } from '../checkpoint/checkpoint.js';
import { loadTokenizer } from './tokenizer.js';
import { splitWordsWhereSafe } from './word-splits.js';

const evaluationText = join(repository, 'examples/data/moby-dick-evaluation.txt');

beforeAll(async () => {
  await promisify(execFile)(process.execPath, [join(repository, 'scripts/make-example-text.mjs')]);
});

interface TokenizerJson {
  readonly model: { readonly vocab: Readonly<Record<string, number>>; readonly merges: readonly (string | readonly [string, string])[] };
}

async function readDefinition(model: 'books-llama' | 'books-opt' | 'books-qwen2'): Promise<TokenizerJson & Record<string, unknown>> {
  return JSON.parse(await readFile(join(modelPath(model), 'tokenizer.json'), 'utf8')) as TokenizerJson & Record<string, unknown>;
}

/** Writes the tokenizer of a model as vocab.json and merges.txt. */
async function writeByteLevelFiles(folder: string, name: 'books-opt' | 'books-qwen2' = 'books-opt'): Promise<void> {
  const { model } = await readDefinition(name);
  await writeFile(join(folder, 'vocab.json'), JSON.stringify(model.vocab));
  const merges = model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  await writeFile(join(folder, 'merges.txt'), ['#version: 0.2', ...merges, ''].join('\n'));
}

describe('loadTokenizer', () => {
  // The ids were made by the reference implementation; the first one of each window may stand for the start of a text there.
  test.each(['books-llama', 'books-opt', 'books-qwen2'] as const)('%s tokenises a long text as the reference does', async (model) => {
    const tokenizer = await loadTokenizer(modelPath(model));
    const ids = tokenizer.encode(await readFile(evaluationText, 'utf8'), { addSpecialTokens: false });
    const fixture = await readFile(join(repository, 'tests/fixtures/calibration', `${model}-eval.safetensors`));
    const expected = new Int32Array(Uint8Array.from(fixture.subarray(-200 * 256 * 4)).buffer);
    const wrong = expected.findIndex((id, position) => position % 256 !== 0 && id !== ids[position]);
    expect(wrong).toBe(-1);
    expect(tokenizer.vocabularySize).toBe(4096);
  });

  test('puts the special tokens that the model expects before a text', async () => {
    const [llama, opt, qwen2] = await Promise.all(
      [modelPath('books-llama'), modelPath('books-opt'), modelPath('books-qwen2')].map((path) => loadTokenizer(path)),
    );
    for (const [tokenizer, prefix] of [
      [llama!, [1]],
      [opt!, [2]],
      [qwen2!, []],
    ] as const) {
      const plain = tokenizer.encode('Call me Ishmael.', { addSpecialTokens: false });
      expect([...tokenizer.encode('Call me Ishmael.')]).toEqual([...prefix, ...plain]);
      expect([...tokenizer.encode('')]).toEqual(prefix);
    }
  });

  test.each(['books-opt', 'books-qwen2'] as const)('builds the same tokenizer from vocab.json and merges.txt of %s', (name) =>
    withTemporaryFolder(async (folder) => {
      await writeByteLevelFiles(folder, name);
      const { added_tokens: added } = await readDefinition(name);
      const decoder = Object.fromEntries((added as readonly { id: number }[]).map(({ id, ...token }) => [id, token]));
      await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ added_tokens_decoder: decoder }));
      await copyFile(join(modelPath(name), 'config.json'), join(folder, 'config.json'));
      const built = await loadTokenizer(folder);
      const given = await loadTokenizer(modelPath(name));
      expect(built.vocabularySize).toBe(given.vocabularySize);
      const text = (await readFile(evaluationText, 'utf8')).slice(0, 50_000);
      expect([...built.encode(text)]).toEqual([...given.encode(text)]);
      const unit = fc.oneof(
        fc.constantFrom(' ', '\n', '\r', '12', "'s", "'RE", 'e\u0301', '</s>', '<pad>', '<|endoftext|>', 'a', '1', 'é', '鯨', '🐋'),
        fc.string({ unit: 'grapheme', maxLength: 4 }),
      );
      fc.assert(
        fc.property(fc.array(unit, { maxLength: 30 }), (parts) => {
          expect([...built.encode(parts.join(''))]).toEqual([...given.encode(parts.join(''))]);
        }),
        { numRuns: 100, seed: 20250516 },
      );
    }),
  );

  test('adds no token before a GPT-2 text unless the config says so', () =>
    withTemporaryFolder(async (folder) => {
      await writeByteLevelFiles(folder);
      await writeFile(join(folder, 'config.json'), '{"model_type": "gpt2"}');
      const plain = [...(await loadTokenizer(folder)).encode('whale')];
      await writeFile(join(folder, 'tokenizer_config.json'), '{"add_bos_token": true, "bos_token": {"content": "<s>"}}');
      expect([...(await loadTokenizer(folder)).encode('whale')]).toEqual([0, ...plain]);
      await writeFile(join(folder, 'tokenizer_config.json'), '{"add_bos_token": true, "bos_token": "<none>"}');
      await expectFailure(() => loadTokenizer(folder), 'INVALID_CHECKPOINT', /"<none>" .* is not in vocab.json/);
    }));

  test.each([
    ['tokenizer.json', '{', /tokenizer.json: it is not valid JSON/],
    ['tokenizer.json', '{}', /the tokenizer cannot be used: .*must contain a "model" property/],
    [
      'tokenizer.json',
      '{"model": {"type": "Other"}, "decoder": null, "post_processor": null, "pre_tokenizer": null, "normalizer": null, "added_tokens": []}',
      /Other/,
    ],
    ['vocab.json', '[]', /vocab.json is not an object/],
    ['vocab.json', '{}', /vocab.json is empty/],
    ['vocab.json', '{"a": 1.5}', /the id of "a" is no integer/],
    ['merges.txt', '#version: 0.2\na b\na b c\n', /merges.txt, line 3: expected two tokens/],
  ])('a broken %s is refused by name (%s)', (name, content, message) =>
    withTemporaryFolder(async (folder) => {
      await writeByteLevelFiles(folder);
      await writeFile(join(folder, name), content);
      await expectFailure(() => loadTokenizer(folder), 'INVALID_CHECKPOINT', message);
    }),
  );

  test('a folder without tokenizer is refused with advice', () =>
    withTemporaryFolder(async (folder) => {
      await writeByteLevelFiles(folder);
      await writeFile(join(folder, 'vocab.json'), '');
      await expectFailure(() => loadTokenizer(folder), 'INVALID_CHECKPOINT', /vocab.json: it is not valid JSON/);
      await mkdir(join(folder, 'empty'));
      await expectFailure(
        () => loadTokenizer(join(folder, 'empty')),
        'INVALID_CHECKPOINT',
        /neither tokenizer.json nor vocab.json and merges.txt/,
      );
    }));

  test('text that the vocabulary does not have is refused, not left out', () =>
    withTemporaryFolder(async (folder) => {
      const added = [{ id: 1, content: '<x>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }];
      const post = {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: '<gone>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
        pair: [],
      };
      const model = { type: 'BPE', vocab: { a: 0 }, merges: [], unk_token: null };
      await writeFile(
        join(folder, 'tokenizer.json'),
        JSON.stringify({ added_tokens: added, normalizer: null, pre_tokenizer: null, post_processor: post, decoder: null, model }),
      );
      const tokenizer = await loadTokenizer(folder);
      expect(tokenizer.vocabularySize).toBe(2);
      await expectFailure(() => Promise.resolve().then(() => tokenizer.encode('a')), 'INVALID_DATA', /no id for "<gone>"/);
    }));

  test('leaves links out of the allowed roots alone', async () => {
    await using checkpoint = await openCheckpoint(modelPath('books-opt'));
    await expectFailure(
      () => loadTokenizer(checkpoint.directory, { allowedRoots: [join(repository, 'packages')] }),
      'PATH_NOT_ALLOWED',
      /tokenizer/,
    );
  });
});

describe('splitWordsWhereSafe', () => {
  interface Library {
    encode(text: string): { ids: number[] };
  }
  const LibraryOf = LibraryTokenizer as unknown as new (definition: object, config: object) => Library;

  test('never changes the ids', async () => {
    const definition = await readDefinition('books-llama');
    const split = splitWordsWhereSafe(definition);
    expect(split).not.toBe(definition);
    const [whole, words] = [new LibraryOf(definition, {}), new LibraryOf(split, {})];
    const text = (await readFile(evaluationText, 'utf8')).slice(0, 20_000);
    expect(words.encode(text).ids).toEqual(whole.encode(text).ids);
    const unit = fc.oneof(
      fc.constantFrom(' ', '  ', '\u2581', '\n', '\t', 'the', 'ing', '<s>', '</s>', 'é', '鯨', '🐋', '.', '--'),
      fc.string({ unit: 'grapheme', maxLength: 4 }),
    );
    fc.assert(
      fc.property(fc.array(unit, { maxLength: 40 }), (parts) => {
        expect(words.encode(parts.join('')).ids).toEqual(whole.encode(parts.join('')).ids);
      }),
      { numRuns: 300, seed: 20250516 },
    );
  });

  test('leaves alone what it could change', async () => {
    const definition = await readDefinition('books-llama');
    const withModel = (model: object): Record<string, unknown> => ({ ...definition, model: { ...definition.model, ...model } });
    for (const same of [
      { ...definition, pre_tokenizer: { type: 'Whitespace' } },
      withModel({ merges: [...definition.model.merges, ['a', '\u2581']] }),
      withModel({ merges: [...definition.model.merges, 'a\u2581 b'] }),
      withModel({ merges: ['\u2581a \u2581'] }),
      withModel({ ignore_merges: true }),
      withModel({ end_of_word_suffix: '</w>' }),
      withModel({ type: 'Unigram' }),
    ]) {
      expect(splitWordsWhereSafe(same)).toBe(same);
    }
  });
});
