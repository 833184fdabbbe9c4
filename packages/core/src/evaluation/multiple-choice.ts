/** A question of a task: which of its answers is right is asked of the likelihood of text after text. */
export interface MultipleChoiceItem {
  readonly choices: readonly ScoredChoice[];
  /** Position of the right answer. */
  readonly gold: number;
}

export interface ScoredChoice {
  /** What comes before. */
  readonly context: string;
  /** The text whose likelihood counts, with the space that parts it from the context. */
  readonly continuation: string;
  /** Bytes of the answer in UTF-8, by which its likelihood is divided where lengths shall not matter. */
  readonly bytes: number;
}

/** Answers to one prompt, a space before each. */
export function choicesAfter(context: string, answers: readonly string[]): ScoredChoice[] {
  return answers.map((answer) => ({ context, continuation: ` ${answer}`, bytes: utf8Bytes(answer) }));
}

export function utf8Bytes(text: string): number {
  return new TextEncoder().encode(text).byteLength;
}
