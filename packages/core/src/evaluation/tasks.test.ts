import { describe, expect, test } from '@jest/globals';
import { Task } from '@secateur/proto/job';
import { findTask, readQuestion, TASKS } from './tasks.js';

const ask = (task: Task, record: unknown) => readQuestion(findTask(task), record, 'items.jsonl, line 3');

/** What is fed to the model: each context with what follows it. */
const texts = (task: Task, record: unknown): string[] =>
  ask(task, record).choices.map(({ context, continuation }) => `${context}|${continuation}`);

test('every task of the wire has a definition', () => {
  const tasks = Object.values(Task).filter((task) => task !== Task.UNSPECIFIED && task !== Task.UNRECOGNIZED);
  expect([...TASKS.keys()]).toEqual(tasks);
  expect(() => findTask(Task.UNSPECIFIED)).toThrow(/task 0 is not known/);
});

describe('prompts and answers', () => {
  test('boolq', () => {
    const record = { passage: 'Whales are mammals.', question: 'is a whale a fish', label: 0 };
    const prompt = 'Whales are mammals.\nQuestion: is a whale a fish?\nAnswer:';
    expect(texts(Task.BOOLQ, record)).toEqual([`${prompt}| no`, `${prompt}| yes`]);
    expect(ask(Task.BOOLQ, record).gold).toBe(0);
  });

  test('rte', () => {
    const record = { premise: 'The ship sank.', hypothesis: 'A ship sank.', label: 1 };
    const prompt = 'The ship sank.\nQuestion: A ship sank. True or False?\nAnswer:';
    expect(texts(Task.RTE, record)).toEqual([`${prompt}| True`, `${prompt}| False`]);
    expect(ask(Task.RTE, record).gold).toBe(1);
  });

  test('arc_easy, arc_challenge and openbookqa', () => {
    const record = { question: 'What floats?', choices: ['a stone', 'a cork', 'iron', 'gold'], label: 1 };
    for (const task of [Task.ARC_EASY, Task.ARC_CHALLENGE]) {
      expect(texts(task, record)[1]).toBe('Question: What floats?\nAnswer:| a cork');
    }
    expect(texts(Task.OPENBOOKQA, record)).toEqual([
      'What floats?| a stone',
      'What floats?| a cork',
      'What floats?| iron',
      'What floats?| gold',
    ]);
    expect(ask(Task.OPENBOOKQA, record).gold).toBe(1);
  });

  test('piqa', () => {
    const record = { goal: 'Open a jar', choices: ['twist the lid', 'shout'], label: 0 };
    expect(texts(Task.PIQA, record)).toEqual(['Question: Open a jar\nAnswer:| twist the lid', 'Question: Open a jar\nAnswer:| shout']);
  });

  test('winogrande scores what follows the blank, after either option', () => {
    const record = { sentence: 'Ann thanked Bea because _  had helped her. ', option1: 'Ann', option2: 'Bea', answer: '2' };
    expect(texts(Task.WINOGRANDE, record)).toEqual([
      'Ann thanked Bea because Ann| had helped her.',
      'Ann thanked Bea because Bea| had helped her.',
    ]);
    expect(ask(Task.WINOGRANDE, record).gold).toBe(1);
  });

  test('hellaswag begins the second part of the context with a capital and takes out the markup', () => {
    const record = {
      activity_label: 'Baking',
      ctx_a: '[header] How to bake [title] Mix [substeps] the dough.',
      ctx_b: 'the MAN',
      endings: ['[step] waits.', ' eats  it. '],
      label: '1',
    };
    expect(texts(Task.HELLASWAG, record)).toEqual([
      'Baking: How to bake. Mix the dough. The man|  waits.',
      'Baking: How to bake. Mix the dough. The man| eats it.',
    ]);
    expect(ask(Task.HELLASWAG, record).gold).toBe(1);
  });

  test('hellaswag takes a context that is whole as it is', () => {
    const record = { query: 'Baking: A man mixes. the man', endings: ['waits.', 'eats.'], label: 0 };
    expect(texts(Task.HELLASWAG, record)[0]).toBe('Baking: A man mixes. the man| waits.');
  });
});

test('answers are as long as their bytes', () => {
  const { choices } = ask(Task.PIQA, { goal: 'g', choices: ['plain', 'café ☕'], label: 0 });
  expect(choices.map(({ bytes }) => bytes)).toEqual([5, 9]);
});

describe('a record that is not as its task needs it', () => {
  test.each<[Task, unknown, RegExp]>([
    [Task.BOOLQ, [], /^items.jsonl, line 3: it is not an object/],
    [Task.BOOLQ, { question: 'q', label: 0 }, /field "passage" is not a string/],
    [Task.BOOLQ, { passage: 'p', question: 'q', label: 2 }, /field "label" is 2, not a whole number from 0 to 1/],
    [Task.BOOLQ, { passage: 'p', question: 'q', label: true }, /field "label" is true/],
    [Task.PIQA, { goal: 'g', choices: ['one'], label: 0 }, /field "choices" is not a list of at least two strings/],
    [Task.PIQA, { goal: 'g', choices: ['one', 2], label: 0 }, /field "choices"/],
    [Task.WINOGRANDE, { sentence: 's', option1: 'a', option2: 'b', answer: '1' }, /has no blank _/],
    [
      Task.WINOGRANDE,
      { sentence: 's _', option1: 'a', option2: 'b', answer: '0' },
      /field "answer" is "0", not a whole number from 1 to 2/,
    ],
    [Task.HELLASWAG, { endings: ['a', 'b'], label: 0 }, /field "query" is not a string/],
  ])('task %p: %j is refused by place and field', (task, record, message) => {
    expect(() => ask(task, record)).toThrow(message);
  });
});
