import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { findTask } from '@secateur/core';
import { Task } from '@secateur/proto/job';
import { expectFailure, modelPath, withTemporaryFolder } from '../../test/support.js';
import { loadTokenizer } from '../tokenizer/tokenizer.js';
import { loadTask, type LoadedTask } from './load-task.js';

const model = { directory: modelPath('books-opt'), vocabularySize: 4096, maximumTokens: 512 };
const piqa = findTask(Task.PIQA);

const lines = (...records: unknown[]): string => records.map((record) => `${JSON.stringify(record)}\n`).join('');

function withFile<Result>(content: string, use: (path: string) => Promise<Result>): Promise<Result> {
  return withTemporaryFolder(async (folder) => {
    const path = join(folder, 'items.jsonl');
    await writeFile(path, content);
    return use(path);
  });
}

const record = (goal: string) => ({ goal, choices: ['with a boat', 'on foot'], label: 1 });

describe('loadTask', () => {
  test('makes tokens of every answer in its context, without special tokens', () =>
    withFile(lines(record('Cross the sea'), record('Climb the hill')), async (path) => {
      const { items, sequences } = await loadTask(piqa, { path, limit: 0 }, model);
      const tokenizer = await loadTokenizer(model.directory);
      const encode = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];
      expect(items.map(({ gold }) => gold)).toEqual([1, 1]);
      expect(sequences).toHaveLength(4);
      expect([...sequences[2]!.ids]).toEqual(encode('Question: Climb the hill\nAnswer: with a boat'));
      expect(sequences[2]!.first).toBe(encode('Question: Climb the hill\nAnswer:').length);
    }));

  test('counts spaces at the end of a context to what follows', () =>
    withFile(lines({ question: 'The whale ', choices: ['swam', 'sank'], label: 0 }), async (path) => {
      const { sequences } = await loadTask(findTask(Task.OPENBOOKQA), { path, limit: 0 }, model);
      const tokenizer = await loadTokenizer(model.directory);
      expect(sequences[0]!.first).toBe(tokenizer.encode('The whale', { addSpecialTokens: false }).length);
      expect([...sequences[0]!.ids]).toEqual([...tokenizer.encode('The whale  swam', { addSpecialTokens: false })]);
    }));

  test('reads only as many questions as are asked for, and blank lines are none', () =>
    withFile(`${lines(record('a'))}\n${lines(record('b'))}{`, async (path) => {
      const load = (limit: number): Promise<LoadedTask> => loadTask(piqa, { path, limit }, model);
      expect((await load(2)).items).toHaveLength(2);
      await expectFailure(() => load(3), 'INVALID_DATA', /items.jsonl, line 4: it is not valid JSON/);
    }));

  test('names what cannot be used', () =>
    withFile(lines(record('a'), { goal: 'b', choices: ['x'], label: 0 }), async (path) => {
      const load =
        (limit: number, change: object = {}) =>
        () =>
          loadTask(piqa, { path, limit }, { ...model, ...change });
      await expectFailure(load(0), 'INVALID_DATA', /items.jsonl, line 2: the field "choices"/);
      await expectFailure(load(1, { vocabularySize: 100 }), 'INVALID_DATA', /line 1: id \d+ .* vocabulary of 100/);
      await expectFailure(load(1, { maximumTokens: 2 }), 'INVALID_DATA', /line 1: of \d+ tokens .* the 2 the model takes/);
      await writeFile(path, lines(record('a')));
      await expectFailure(load(2), 'INVALID_DATA', /it has 1 questions, 2 were asked for/);
      await writeFile(path, '\n');
      await expectFailure(load(0), 'INVALID_DATA', /it holds no question of piqa/);
    }));
});
