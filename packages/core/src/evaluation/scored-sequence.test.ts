import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { perplexityOf, sequenceOf, sequencesOfWindows } from './scored-sequence.js';

const count = (length: number): Int32Array => Int32Array.from({ length }, (_, index) => index);

describe('sequenceOf', () => {
  test('scores what follows the tokens of the context', () => {
    expect(sequenceOf(count(7), 4, 100, 'here')).toEqual({ ids: count(7), first: 4 });
  });

  test('takes the beginning away from what is too long', () => {
    expect(sequenceOf(count(7), 4, 5, 'here')).toEqual({ ids: count(7).subarray(2), first: 2 });
  });

  test.each([
    ['an answer without a token', 7, 7, 100],
    ['a context without a token', 7, 0, 100],
    ['an answer that is too long', 7, 2, 5],
  ])('refuses %s', (_, length, contextTokens, maximum) => {
    expect(() => sequenceOf(count(length), contextTokens, maximum, 'piqa.jsonl, line 2')).toThrow(/^piqa.jsonl, line 2: of 7 tokens/);
  });
});

describe('windows', () => {
  test('without overlap are scored from their second token on', () => {
    const sequences = sequencesOfWindows(count(12), 4, 4);
    expect(sequences.map(({ ids, first }) => [[...ids], first])).toEqual([
      [[0, 1, 2, 3], 1],
      [[4, 5, 6, 7], 1],
      [[8, 9, 10, 11], 1],
    ]);
  });

  test('with overlap score every token of the text but the first exactly once', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 12 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 6 }),
        (length, step, windows) => {
          const stride = Math.min(step, length - 1);
          const rows = Array.from({ length: windows }, (_, window) => [...count(length)].map((place) => place + window * stride));
          const scored = sequencesOfWindows(Int32Array.from(rows.flat()), length, stride).flatMap(({ ids, first }) => [
            ...ids.subarray(first),
          ]);
          expect(scored).toEqual([...count(length + (windows - 1) * stride)].slice(1));
        },
      ),
    );
  });
});

test('the perplexity is that of all scored tokens together', () => {
  const sequences = [
    { ids: count(4), first: 1 },
    { ids: count(4), first: 3 },
  ];
  expect(perplexityOf(sequences, [1, 5])).toBeCloseTo(Math.exp((3 * 1 + 5) / 4), 12);
});
