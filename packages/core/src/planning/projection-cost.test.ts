import { expect, test } from '@jest/globals';
import { projectionCost } from './projection-cost.js';

test('twice the rows, columns or samples cost twice as much', () => {
  const cost = projectionCost(64, 192, 16);
  expect(cost).toBeGreaterThan(0);
  for (const doubled of [projectionCost(128, 192, 16), projectionCost(64, 384, 16), projectionCost(64, 192, 32)])
    expect(doubled).toBe(2 * cost);
});
