import { readQuestion, SecateurError, sequenceOf, type MultipleChoiceItem, type ScoredSequence, type TaskDefinition } from '@secateur/core';
import { placeOf, readJsonLines } from '../files/json-lines.js';
import { openInput } from '../files/open-input.js';
import { BackgroundTokenizer } from '../tokenizer/background-tokenizer.js';
import type { LoadOptions } from './load-tokens.js';
import { requireVocabulary, type TokenConsumer } from './token-set.js';

/** Texts that are given to the tokenizer at a time. */
const BATCH_TEXTS = 1024;

/** Where the questions of a task come from. */
export interface TaskFile {
  /** .jsonl with a question per line. */
  readonly path: string;
  /** Only the first questions; all when 0. */
  readonly limit: number;
}

export interface LoadedTask {
  readonly items: readonly MultipleChoiceItem[];
  /** Of each answer of each question, in order. */
  readonly sequences: readonly ScoredSequence[];
}

/**
 * Reads the questions of a task and makes tokens of every answer in its context, without special tokens, as lm-evaluation-harness does: of the
 * tokens of both texts together as many are the context's as it has alone, without the spaces at its end. `maximumTokens`: what the model takes.
 */
export async function loadTask(
  task: TaskDefinition,
  { path, limit }: TaskFile,
  { directory, vocabularySize, allowedRoots, maximumTokens }: TokenConsumer & { readonly maximumTokens: number },
  { signal }: LoadOptions = {},
): Promise<LoadedTask> {
  const questions = await readQuestions(task, { path, limit }, allowedRoots, signal);
  const answers = questions.flatMap(({ where, item }) =>
    item.choices.map(({ context, continuation }) => ({ where, context, continuation })),
  );
  const tokenizer = new BackgroundTokenizer({ directory, allowedRoots }, signal);
  try {
    const sequences: ScoredSequence[] = [];
    for (let start = 0; start < answers.length; start += BATCH_TEXTS) {
      const batch = answers.slice(start, start + BATCH_TEXTS);
      const texts = batch.flatMap(({ context, continuation }) => [context.trimEnd(), context + continuation]);
      const encoded = await tokenizer.encodeAll(texts, { addSpecialTokens: false });
      for (const [index, { where }] of batch.entries()) {
        const sequence = sequenceOf(encoded[2 * index + 1]!, encoded[2 * index]!.length, maximumTokens, where);
        requireVocabulary(where, sequence.ids, sequence.ids.length, vocabularySize);
        sequences.push(sequence);
      }
    }
    return { items: questions.map(({ item }) => item), sequences };
  } finally {
    await tokenizer.close();
  }
}

async function readQuestions(
  task: TaskDefinition,
  { path, limit }: TaskFile,
  allowedRoots: readonly string[] | undefined,
  signal: AbortSignal | undefined,
): Promise<{ where: string; item: MultipleChoiceItem }[]> {
  const file = await openInput(path, { allowedRoots });
  try {
    const questions: { where: string; item: MultipleChoiceItem }[] = [];
    for await (const { line, value } of readJsonLines(file, signal)) {
      const where = placeOf(path, line);
      questions.push({ where, item: readQuestion(task, value, where) });
      if (questions.length === limit) break;
    }
    if (questions.length === 0) throw new SecateurError('INVALID_DATA', `${path}: it holds no question of ${task.name}.`);
    if (questions.length < limit) {
      throw new SecateurError('INVALID_DATA', `${path}: it has ${questions.length} questions, ${limit} were asked for.`);
    }
    return questions;
  } finally {
    await file.close();
  }
}
