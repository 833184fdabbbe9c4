import { SecateurError } from '@secateur/core';

/** What decides how a tokenizer given as vocab.json and merges.txt splits texts, and its special tokens. */
export interface ByteLevelOptions {
  /** As in tokenizer_config.json; its values are not trusted. */
  readonly config: Readonly<Record<string, unknown>>;
  /** `model_type` of config.json. OPT puts `</s>` before every text unless `add_bos_token` says otherwise. */
  readonly modelType: string | undefined;
}

const SPECIAL_TOKEN_FIELDS = ['bos_token', 'eos_token', 'unk_token', 'pad_token', 'mask_token'];
/** What the two families have when tokenizer_config.json names nothing. */
const OPT_SPECIAL_TOKENS = ['</s>', '<pad>'];
const GPT2_SPECIAL_TOKENS = ['<|endoftext|>'];

const PLAIN_TOKEN = { single_word: false, lstrip: false, rstrip: false, normalized: false };

/** Families whose tokenizers split texts as Qwen2's does, and normalise them; others do as GPT-2's. */
const LIKE_QWEN2: ReadonlySet<string | undefined> = new Set(['qwen2', 'qwen3']);
const QWEN2_WORDS =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** The tokenizer.json that says the same as vocab.json and merges.txt of a byte-level BPE tokenizer. */
export function buildByteLevelTokenizer(vocabulary: unknown, mergesText: string, { config, modelType }: ByteLevelOptions): object {
  const vocab = checkVocabulary(vocabulary);
  const addPrefixSpace = config['add_prefix_space'] === true;
  const byteLevel = { type: 'ByteLevel', add_prefix_space: addPrefixSpace, trim_offsets: false, use_regex: true };
  const isOpt = modelType === 'opt';
  const isLikeQwen2 = LIKE_QWEN2.has(modelType);
  const words = { type: 'Split', pattern: { Regex: QWEN2_WORDS }, behavior: 'Isolated', invert: false };
  const added = addedTokens(config['added_tokens_decoder']);
  const named = SPECIAL_TOKEN_FIELDS.flatMap((field) => tokenContent(config[field]) ?? []);
  const special = new Set(named.length > 0 ? named : isOpt ? OPT_SPECIAL_TOKENS : GPT2_SPECIAL_TOKENS);
  const addBos = typeof config['add_bos_token'] === 'boolean' ? config['add_bos_token'] : isOpt;
  const bos = tokenContent(config['bos_token']) ?? (isOpt ? '</s>' : '<|endoftext|>');
  return {
    version: '1.0',
    added_tokens: [
      ...added.values(),
      ...[...special]
        .filter((content) => vocab.has(content) && !added.has(content))
        .map((content) => ({ ...PLAIN_TOKEN, id: vocab.get(content), content, special: true })),
    ],
    normalizer: isLikeQwen2 ? { type: 'NFC' } : null,
    pre_tokenizer: isLikeQwen2 ? { type: 'Sequence', pretokenizers: [words, { ...byteLevel, use_regex: false }] } : byteLevel,
    post_processor: addBos ? prefixTemplate(bos, vocab) : { ...byteLevel, use_regex: false },
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(vocab),
      merges: parseMerges(mergesText),
    },
  };
}

function checkVocabulary(vocabulary: unknown): Map<string, number> {
  if (typeof vocabulary !== 'object' || vocabulary === null || Array.isArray(vocabulary))
    throw invalid('vocab.json is not an object of tokens');
  const vocab = new Map<string, number>();
  for (const [token, id] of Object.entries(vocabulary)) {
    if (!Number.isSafeInteger(id) || (id as number) < 0) throw invalid(`vocab.json: the id of ${JSON.stringify(token)} is no integer`);
    vocab.set(token, id as number);
  }
  if (vocab.size === 0) throw invalid('vocab.json is empty');
  return vocab;
}

function parseMerges(text: string): [string, string][] {
  const merges: [string, string][] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line === '' || (index === 0 && line.startsWith('#version'))) continue;
    const [left, right, ...rest] = line.split(' ');
    if (left === undefined || right === undefined || rest.length > 0) throw invalid(`merges.txt, line ${index + 1}: expected two tokens`);
    merges.push([left, right]);
  }
  return merges;
}

function prefixTemplate(token: string, vocab: ReadonlyMap<string, number>): object {
  const id = vocab.get(token);
  if (id === undefined) throw invalid(`the token ${JSON.stringify(token)} that begins every text is not in vocab.json`);
  const prefix = { SpecialToken: { id: token, type_id: 0 } };
  return {
    type: 'TemplateProcessing',
    single: [prefix, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [prefix, { Sequence: { id: 'A', type_id: 0 } }, prefix, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { [token]: { id: token, ids: [id], tokens: [token] } },
  };
}

/** Tokens by their text that tokenizer_config.json adds to those of vocab.json, by their ids. */
function addedTokens(decoder: unknown): Map<string, object> {
  const tokens = new Map<string, object>();
  if (typeof decoder !== 'object' || decoder === null) return tokens;
  for (const [id, token] of Object.entries(decoder as Readonly<Record<string, unknown>>)) {
    const content = tokenContent(token);
    if (content !== undefined)
      tokens.set(content, { ...PLAIN_TOKEN, special: true, ...(typeof token === 'object' ? token : {}), id: Number(id), content });
  }
  return tokens;
}

/** A token in tokenizer_config.json is a string or an object with its content. */
function tokenContent(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'object' && value !== null && 'content' in value && typeof value.content === 'string') return value.content;
  return undefined;
}

function invalid(what: string): SecateurError {
  return new SecateurError('INVALID_CHECKPOINT', `The tokenizer cannot be read: ${what}.`);
}
