import { expect, test } from '@jest/globals';
import { backoffMs } from './backoff.js';

test('pauses double up to the longest, and are a random half shorter at most', () => {
  for (const [failures, most] of [1, 2, 3, 4, 5, 2_000].map(
    (failed, index) => [failed, [100, 200, 400, 800, 1_000, 1_000][index]!] as const,
  )) {
    const pauses = Array.from({ length: 200 }, () => backoffMs(failures, 100, 1_000));
    expect(Math.max(...pauses)).toBeLessThanOrEqual(most);
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(most / 2);
    expect(new Set(pauses).size).toBeGreaterThan(1);
  }
});
