import fc from 'fast-check';

/** Whether each case runs for each of its subjects, as before a release: `SECATEUR_TESTS=all npm test`. */
export const EVERYTHING = process.env['SECATEUR_TESTS'] === 'all';

/** Of cases that are the same for several subjects, such as models, those of one subject: usually each case has its turn with one of them. */
export function turnsOf<Case>(cases: readonly Case[], subject: number, subjects: number): Case[] {
  return cases.filter((_, index) => EVERYTHING || index % subjects === subject);
}

/** In random order, the same in every run with the same SECATEUR_TEST_SEED. */
export function shuffled<Value>(values: readonly Value[]): Value[] {
  const { length } = values;
  return fc.sample(fc.shuffledSubarray([...values], { minLength: length, maxLength: length }), 1)[0]!;
}
