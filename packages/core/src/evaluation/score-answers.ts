import type { Accuracy } from '@secateur/proto/pruning_service';
import type { MultipleChoiceItem } from './multiple-choice.js';

/** The share of questions whose most likely answer is the right one. `logLikelihoods`: of each answer of each question. */
export function accuracyOf(items: readonly MultipleChoiceItem[], logLikelihoods: readonly (readonly number[])[]): Accuracy {
  return shareOf(items.map(({ gold }, index) => positionOfLargest(logLikelihoods[index]!) === gold));
}

/** The same with each answer's log-likelihood divided by its bytes. */
export function normalizedAccuracyOf(items: readonly MultipleChoiceItem[], logLikelihoods: readonly (readonly number[])[]): Accuracy {
  const perByte = items.map(({ choices }, index) => choices.map(({ bytes }, choice) => logLikelihoods[index]![choice]! / bytes));
  return accuracyOf(items, perByte);
}

/** The first of equals. */
function positionOfLargest(values: readonly number[]): number {
  return values.indexOf(Math.max(...values));
}

/** The standard error is that of the mean of a sample. */
function shareOf(right: readonly boolean[]): Accuracy {
  const count = right.length;
  const value = right.filter(Boolean).length / count;
  return { value, standardError: count > 1 ? Math.sqrt((value * (1 - value)) / (count - 1)) : 0 };
}
