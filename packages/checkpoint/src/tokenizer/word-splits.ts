/** Stands for a space in vocabularies made by SentencePiece. */
const SPACE_MARK = '\u2581';

/**
 * A tokenizer.json without pre-tokenizer merges the whole text as one word, which is slow for long texts. When no merge makes a token that goes
 * on after a space mark, merges never cross the place before a space mark; cutting there gives the same tokens, and words can be remembered.
 * Returns the definition with such a pre-tokenizer, or as it is where that could change anything.
 */
export function splitWordsWhereSafe(definition: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const model = definition['model'];
  if (definition['pre_tokenizer'] !== null || !isRecord(model) || model['type'] !== 'BPE' || !Array.isArray(model['merges']))
    return definition;
  const wholeWordRules = ['ignore_merges', 'end_of_word_suffix', 'continuing_subword_prefix', 'continuing_subword_suffix'];
  if (wholeWordRules.some((rule) => Boolean(model[rule]))) return definition;
  if (model['merges'].some((merge) => crossesSpaceMark(merge))) return definition;
  const pattern = { Regex: `${SPACE_MARK}+[^${SPACE_MARK}]*|[^${SPACE_MARK}]+` };
  return { ...definition, pre_tokenizer: { type: 'Split', pattern, behavior: 'Isolated', invert: false } };
}

function crossesSpaceMark(merge: unknown): boolean {
  if (typeof merge === 'string') return crossesSpaceMark(merge.split(' '));
  return !Array.isArray(merge) || new RegExp(`[^${SPACE_MARK}]${SPACE_MARK}`).test(merge.join(''));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
