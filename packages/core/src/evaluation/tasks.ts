import { Task } from '@secateur/proto/job';
import { SecateurError } from '../errors.js';
import { hellaswagPrompt, cleanHellaswagText } from './hellaswag-text.js';
import { choicesAfter, utf8Bytes, type MultipleChoiceItem } from './multiple-choice.js';
import { RecordFields } from './record-fields.js';

/** How a task asks its questions, as the tasks of lm-evaluation-harness do without examples (docs/evaluation.md). */
export interface TaskDefinition {
  readonly task: Task;
  /** As lm-evaluation-harness calls it. */
  readonly name: string;
  /** Whether answers are also chosen by their likelihood per byte. */
  readonly normalized: boolean;
  readonly ask: (fields: RecordFields) => MultipleChoiceItem;
}

const DEFINITIONS: readonly TaskDefinition[] = [
  {
    task: Task.BOOLQ,
    name: 'boolq',
    normalized: false,
    ask: (fields) => ({
      choices: choicesAfter(`${fields.text('passage')}\nQuestion: ${fields.text('question')}?\nAnswer:`, ['no', 'yes']),
      gold: fields.position('label', 2),
    }),
  },
  {
    task: Task.RTE,
    name: 'rte',
    normalized: false,
    ask: (fields) => ({
      choices: choicesAfter(`${fields.text('premise')}\nQuestion: ${fields.text('hypothesis')} True or False?\nAnswer:`, ['True', 'False']),
      gold: fields.position('label', 2),
    }),
  },
  {
    task: Task.HELLASWAG,
    name: 'hellaswag',
    normalized: true,
    ask: (fields) => {
      const endings = fields.texts('endings').map(cleanHellaswagText);
      return { choices: choicesAfter(hellaswagPrompt(fields), endings), gold: fields.position('label', endings.length) };
    },
  },
  { task: Task.WINOGRANDE, name: 'winogrande', normalized: false, ask: askWinogrande },
  { task: Task.ARC_EASY, name: 'arc_easy', normalized: true, ask: askArc },
  { task: Task.ARC_CHALLENGE, name: 'arc_challenge', normalized: true, ask: askArc },
  {
    task: Task.OPENBOOKQA,
    name: 'openbookqa',
    normalized: true,
    ask: (fields) => withChoices(fields, fields.text('question')),
  },
  {
    task: Task.PIQA,
    name: 'piqa',
    normalized: true,
    ask: (fields) => withChoices(fields, `Question: ${fields.text('goal')}\nAnswer:`),
  },
];

/** Every task there is. */
export const TASKS: ReadonlyMap<number, TaskDefinition> = new Map(DEFINITIONS.map((definition) => [definition.task, definition]));

/** The definition of a task of a request. */
export function findTask(task: Task): TaskDefinition {
  const found = TASKS.get(task);
  if (found === undefined) throw new SecateurError('INVALID_REQUEST', `The task ${task} is not known.`);
  return found;
}

/** A question from a record of a task file; `where` names its place in errors. */
export function readQuestion({ ask }: TaskDefinition, record: unknown, where: string): MultipleChoiceItem {
  return ask(new RecordFields(record, where));
}

function askArc(fields: RecordFields): MultipleChoiceItem {
  return withChoices(fields, `Question: ${fields.text('question')}\nAnswer:`);
}

function withChoices(fields: RecordFields, prompt: string): MultipleChoiceItem {
  const answers = fields.texts('choices');
  return { choices: choicesAfter(prompt, answers), gold: fields.position('label', answers.length) };
}

/** The options stand in the context, and what follows the blank is scored: it is the same text after either. */
function askWinogrande(fields: RecordFields): MultipleChoiceItem {
  const sentence = fields.text('sentence');
  const blank = sentence.indexOf('_');
  if (blank === -1) throw fields.wrong('the field "sentence" has no blank _');
  const options = [fields.text('option1'), fields.text('option2')];
  const continuation = ` ${sentence.slice(blank + 1).trim()}`;
  return {
    choices: options.map((option) => ({ context: sentence.slice(0, blank) + option, continuation, bytes: utf8Bytes(option) })),
    gold: fields.position('answer', options.length, 1),
  };
}
