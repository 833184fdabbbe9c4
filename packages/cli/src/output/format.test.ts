import { expect, test } from '@jest/globals';
import { formatSeconds, formatTimeLeft } from './format.js';

test.each([
  [0.04, '0.0 s'],
  [59.94, '59.9 s'],
  [59.97, '1 min 0 s'],
  [119.7, '2 min 0 s'],
  [3599.6, '1 h 0 min'],
  [7380, '2 h 3 min'],
])('%d seconds are %s', (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});

test('the time left follows the layers that are finished', () => {
  expect(formatTimeLeft({ seconds: 8, finished: 0, remaining: 4 })).toBe('');
  expect(formatTimeLeft({ seconds: 8, finished: 2, remaining: 3 })).toBe('12.0 s left');
  expect(formatTimeLeft({ seconds: 8, finished: 2, remaining: 0 })).toBe('');
});
