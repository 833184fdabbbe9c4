import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { assignLanes, type PlacedSpan, type TimedSpan } from './span-lanes.js';

const MS = 1e6;

function span(spanId: string, parentSpanId: string, startMs: number, endMs: number): TimedSpan {
  return { spanId, parentSpanId, start: startMs * MS, end: endMs * MS };
}

function laneOf(placed: readonly PlacedSpan<TimedSpan>[], spanId: string): PlacedSpan<TimedSpan> {
  return placed.find((place) => place.span.spanId === spanId)!;
}

describe('lanes', () => {
  test('children stay with their parent, also when their clocks disagree by less than a millisecond', () => {
    const placed = assignLanes([
      span('root', '', 0, 10),
      span('first', 'root', 0, 2.95),
      // Began at 2.95 by the exact clock, but is reported by the whole millisecond.
      span('second', 'root', 2, 5),
      span('inner', 'second', 2, 3),
      span('last', 'root', 9, 10.4),
    ]);
    expect(placed.every(({ lane }) => lane === 0)).toBe(true);
    expect(laneOf(placed, 'second')).toMatchObject({ start: 2.95 * MS, end: 5.95 * MS });
    expect(laneOf(placed, 'inner')).toMatchObject({ start: 2.95 * MS });
    expect(laneOf(placed, 'last')).toMatchObject({ end: 10 * MS });
  });

  test('what runs side by side gets lanes of its own', () => {
    const placed = assignLanes([
      span('root', '', 0, 10),
      span('a', 'root', 1, 9),
      span('b', 'root', 2, 8),
      span('of b', 'b', 3, 4),
      span('c', 'root', 9, 10),
    ]);
    const lanes = Object.fromEntries(placed.map(({ span: { spanId }, lane }) => [spanId, lane]));
    expect(lanes).toEqual({ root: 0, a: 0, b: 1, 'of b': 1, c: 0 });
  });

  test('a lane never holds two spans that overlap, unless one is inside its ancestor', () => {
    const ids = fc.nat({ max: 30 }).map(String);
    const time = fc.integer({ min: 0, max: 40 }).map((tenths) => tenths / 4);
    const spans = fc.uniqueArray(fc.tuple(ids, ids, time, time), { maxLength: 30, selector: ([id]) => id });
    fc.assert(
      fc.property(spans, (tuples) => {
        const given = tuples.map(([id, parent, start, length]) => span(id, parent, start, start + length));
        const placed = assignLanes(given);
        expect(placed.map((place) => place.span.spanId).sort()).toEqual(given.map(({ spanId }) => spanId).sort());
        for (const [index, one] of placed.entries()) {
          expect(one.end).toBeGreaterThanOrEqual(one.start);
          expect(Math.abs(one.start - one.span.start)).toBeLessThan(MS);
          expect(Math.abs(one.end - one.span.end)).toBeLessThan(2 * MS);
          for (const other of placed.slice(index + 1)) {
            if (one.lane !== other.lane || one.end <= other.start || other.end <= one.start) continue;
            const [inner, outer] = isAncestor(placed, one, other) ? [other, one] : [one, other];
            expect(isAncestor(placed, outer, inner)).toBe(true);
            expect(inner.start).toBeGreaterThanOrEqual(outer.start);
            expect(inner.end).toBeLessThanOrEqual(outer.end);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});

function isAncestor(placed: readonly PlacedSpan<TimedSpan>[], candidate: PlacedSpan<TimedSpan>, of: PlacedSpan<TimedSpan>): boolean {
  const seen = new Set<string>();
  let parentId = of.span.parentSpanId;
  while (!seen.has(parentId)) {
    if (parentId === candidate.span.spanId) return true;
    seen.add(parentId);
    parentId = placed.find(({ span: { spanId } }) => spanId === parentId)?.span.parentSpanId ?? '';
  }
  return false;
}
