import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { assignGroups, CALIBRATION_GROUP_SAMPLES, splitIntoGroups } from './groups.js';

describe('splitIntoGroups', () => {
  test('cuts 8 samples at a time, the last group may be shorter', () => {
    const ids = Int32Array.from({ length: 19 * 3 }, (_, index) => index);
    const groups = splitIntoGroups(ids, 19, 3);
    expect(groups.map(({ index, samples, sequenceLength }) => [index, samples, sequenceLength])).toEqual([
      [0, 8, 3],
      [1, 8, 3],
      [2, 3, 3],
    ]);
    expect([...groups[1]!.tokenIds.subarray(0, 8)]).toEqual([24, 0, 0, 0, 25, 0, 0, 0]);
  });

  test('keeps every id, in order, also of ids in the middle of a buffer', () => {
    const shapes = fc.record({ samples: fc.integer({ min: 1, max: 40 }), length: fc.integer({ min: 1, max: 9 }), offset: fc.nat(5) });
    fc.assert(
      fc.property(shapes, fc.integer(), ({ samples, length, offset }, seed) => {
        const whole = Int32Array.from({ length: offset + samples * length + 3 }, (_, index) => Math.imul(index + 1, seed | 1));
        const ids = whole.subarray(offset, offset + samples * length);
        const groups = splitIntoGroups(ids, samples, length);
        const restored = groups.flatMap(({ tokenIds }) => {
          const view = new DataView(tokenIds.buffer, tokenIds.byteOffset, tokenIds.byteLength);
          return Array.from({ length: tokenIds.byteLength / 4 }, (_, index) => view.getInt32(4 * index, true));
        });
        expect(restored).toEqual([...ids]);
        expect(groups.every(({ index, samples: count }) => index === groups.length - 1 || count === CALIBRATION_GROUP_SAMPLES)).toBe(true);
      }),
    );
  });

  test('refuses ids that are not samples x length', () => {
    expect(() => splitIntoGroups(new Int32Array(23), 8, 3)).toThrow(/23.*24/);
  });
});

describe('assignGroups', () => {
  test('spreads over empty slots in turn', () => {
    expect(assignGroups([0, 1, 2, 3, 4], [0, 0])).toEqual([
      [0, 2, 4],
      [1, 3],
    ]);
  });

  test('fills the slots that have less', () => {
    expect(assignGroups([7, 8, 9], [3, 1, 2])).toEqual([[], [7, 8], [9]]);
  });

  test('gives each group to one slot, evens out the loads and keeps the order', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(200)), fc.array(fc.nat(10), { minLength: 1, maxLength: 8 }), (indices, loads) => {
        const assigned = assignGroups(indices, loads);
        expect(assigned).toEqual(assignGroups(indices, loads));
        expect(assigned.flat().sort((left, right) => left - right)).toEqual([...indices].sort((left, right) => left - right));
        for (const [slot, groups] of assigned.entries()) {
          expect(groups).toEqual(indices.filter((index) => groups.includes(index)));
          // What received groups ends at most one above any other slot.
          if (groups.length > 0) {
            for (const [other, more] of assigned.entries())
              expect(loads[slot]! + groups.length).toBeLessThanOrEqual(loads[other]! + more.length + 1);
          }
        }
      }),
    );
  });
});
