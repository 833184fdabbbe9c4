import { expect, test } from '@jest/globals';
import { choicesAfter, type MultipleChoiceItem } from './multiple-choice.js';
import { accuracyOf, normalizedAccuracyOf } from './score-answers.js';

const item = (gold: number, ...answers: string[]): MultipleChoiceItem => ({ choices: choicesAfter('Q', answers), gold });

test('the most likely answer counts, the first of equals, with the standard error of a mean', () => {
  const items = [item(0, 'a', 'b'), item(1, 'a', 'b'), item(0, 'a', 'b'), item(1, 'a', 'b')];
  const logLikelihoods = [
    [-1, -2],
    [-1, -2],
    [-3, -3],
    [-3, -3],
  ];
  expect(accuracyOf(items, logLikelihoods)).toEqual({ value: 0.5, standardError: Math.sqrt(0.25 / 3) });
});

test('per byte, a long answer may win over a short one', () => {
  const items = [item(1, 'no', 'certainly')];
  const logLikelihoods = [[-4, -9]];
  expect(accuracyOf(items, logLikelihoods)).toEqual({ value: 0, standardError: 0 });
  expect(normalizedAccuracyOf(items, logLikelihoods)).toEqual({ value: 1, standardError: 0 });
});

test('bytes are those of UTF-8', () => {
  // 4 characters in 8 bytes: −8 ⁄ 8 is above −6 ⁄ 5, which −8 ⁄ 4 is not.
  expect(normalizedAccuracyOf([item(0, 'éééé', 'abcde')], [[-8, -6]]).value).toBe(1);
});
