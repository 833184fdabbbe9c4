import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { expectFailure, modelPath, withTemporaryFolder } from '../../test/support.js';
import { BackgroundTokenizer } from './background-tokenizer.js';
import { loadTokenizer } from './tokenizer.js';

const VOCABULARY = { a: 0, b: 1 };

/** A tokenizer.json that cuts words where a pattern says so. */
function definition(pattern: string, vocab: object = VOCABULARY, more: object = {}): string {
  const split = { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
  return JSON.stringify({
    ...{ normalizer: null, added_tokens: [], post_processor: null, decoder: null, pre_tokenizer: split },
    model: { type: 'BPE', vocab, merges: [] },
    ...more,
  });
}

test('gives the same ids as the tokenizer, for many texts at once', async () => {
  const tokenizer = new BackgroundTokenizer({ directory: modelPath('books-opt') });
  const here = await loadTokenizer(modelPath('books-opt'));
  try {
    const texts = ['Call me Ishmael.', '', '\ud800'];
    expect((await tokenizer.encodeAll(texts)).map((ids) => [...ids])).toEqual(texts.map((text) => [...here.encode(text)]));
  } finally {
    await tokenizer.close();
  }
});

test('a pattern that takes time without end is stopped, and the error says where to look', () =>
  withTemporaryFolder(async (folder) => {
    await writeFile(join(folder, 'tokenizer.json'), definition('(a+)+$'));
    const tokenizer = new BackgroundTokenizer({ directory: folder }, undefined, 2_000);
    try {
      await expectFailure(
        () => tokenizer.encode(`${'a'.repeat(100)}b`),
        'INVALID_CHECKPOINT',
        /more than 2 s .* pattern in tokenizer\.json/,
      );
    } finally {
      await tokenizer.close();
    }
  }));

test.each([
  ['a part that the library does not have', definition('a', VOCABULARY, { post_processor: { type: 'BertProcessing' } }), /cannot be used/],
  ['ids that are no numbers', definition('a', { a: 'x', b: {} }), /gives "a" the id "x"/],
  ['ids beyond any vocabulary', definition('a', { a: 2 ** 31 - 1, b: 0 }), /gives "a" the id 2147483647/],
  ['ids below zero', definition('a', { a: -1, b: 0 }), /gives "a" the id -1/],
])('a tokenizer with %s is refused when it is used', (_, content, message) =>
  withTemporaryFolder(async (folder) => {
    await writeFile(join(folder, 'tokenizer.json'), content);
    await expectFailure(async () => (await loadTokenizer(folder)).encode('ab'), 'INVALID_CHECKPOINT', message);
  }),
);
