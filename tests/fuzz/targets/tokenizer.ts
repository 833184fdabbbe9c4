import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadTokenizer } from '@secateur/checkpoint';
import type { FuzzTarget } from '../engine/target.js';

const TEXTS = ['', 'The whale rose again.', '  two  spaces\n\n\ttab', 'é 🐳 ﬁ Ⅻ \u0000 \ud800', 'a'.repeat(2_000), `${'ab '.repeat(300)}!`];
const WATCHED = ['@huggingface/tokenizers', 'packages/checkpoint/'];
/** The library may take this long for TEXTS; what bounds a text of a user is the limit of the process that tokenises. */
const LIMIT_MS = 20_000;

async function readAndEncode(folder: string): Promise<void> {
  const tokenizer = await loadTokenizer(folder);
  for (const text of TEXTS) for (const addSpecialTokens of [true, false]) tokenizer.encode(text, { addSpecialTokens });
}

/** tokenizer.json. */
export const tokenizer: FuzzTarget = {
  words: [
    ...['"pre_tokenizer":', '"normalizer":', '"post_processor":', '"model":', '"decoder":', '"vocab":', '"merges":', '"added_tokens":'],
    ...['"type":"Sequence"', '"ByteLevel"', '"Metaspace"', '"Split"', '"Whitespace"', '"BertPreTokenizer"', '"Punctuation"', '"Digits"'],
    ...['"BPE"', '"WordPiece"', '"Unigram"', '"WordLevel"', '"TemplateProcessing"', '"RobertaProcessing"', '"BertProcessing"'],
    ...['"NFC"', '"NFKD"', '"Lowercase"', '"Strip"', '"Prepend"', '"Replace"', '"Precompiled"', '"BertNormalizer"', '"StripAccents"'],
    ...['"pattern":{"Regex":"\\\\s+"}', '"pattern":{"String":""}', '"behavior":"Isolated"', '"behavior":"MergedWithNext"', '"invert":true'],
    ...[
      '"byte_fallback":true',
      '"ignore_merges":true',
      '"unk_token":',
      '"single_word":true',
      '"special":true',
      '\u2581',
      '(?i:',
      '\\\\p{L}',
    ],
  ],
  watched: WATCHED,
  limitMs: LIMIT_MS,
  open: async (folder) => ({
    read: async (input) => {
      await writeFile(join(folder, 'tokenizer.json'), input);
      await readAndEncode(folder);
    },
  }),
};

const PARTS = ['vocab.json', 'merges.txt', 'tokenizer_config.json', 'config.json'];
const SEPARATOR = '\n====\n';

/** vocab.json, merges.txt, tokenizer_config.json and config.json, one after the other. */
export const vocabulary: FuzzTarget = {
  words: ['#version: 0.2\n', 'Ġ', 'a b\n', '"</s>"', '"add_bos_token":true', '"bos_token":', '"content":', '"model_type":"opt"', SEPARATOR],
  watched: WATCHED,
  limitMs: LIMIT_MS,
  open: async (folder) => ({
    read: async (input) => {
      const parts = input.toString('latin1').split(SEPARATOR);
      for (const [index, name] of PARTS.entries()) await writeFile(join(folder, name), parts[index] ?? '', 'latin1');
      await readAndEncode(folder);
    },
  }),
};
