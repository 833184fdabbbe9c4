import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CALIBRATION_GROUP_SAMPLES, splitIntoGroups } from '../planning/groups.js';
import { batchSequences } from './batch-sequences.js';
import { sequencesOfWindows, type ScoredSequence } from './scored-sequence.js';

const sequences: fc.Arbitrary<ScoredSequence[]> = fc.array(
  fc
    .array(fc.integer({ min: 1, max: 1000 }), { minLength: 2, maxLength: 12 })
    .chain((ids) => fc.integer({ min: 1, max: ids.length - 1 }).map((first) => ({ ids: Int32Array.from(ids), first }))),
  { minLength: 1, maxLength: 40 },
);

test('every sequence is in one group, whole, filled up behind its end', () => {
  fc.assert(
    fc.property(sequences, (given) => {
      const groups = batchSequences(given);
      expect(groups.map(({ group }) => group.index)).toEqual(groups.map((_, index) => index));
      const places = groups.flatMap(({ group, samples }) => {
        const ids = new Int32Array(group.tokenIds.buffer);
        expect(group.samples).toBe(samples.length);
        expect(samples.length).toBeLessThanOrEqual(CALIBRATION_GROUP_SAMPLES);
        return samples.map(({ place, first, end }, row) => {
          const sample = [...ids.subarray(row * group.sequenceLength, (row + 1) * group.sequenceLength)];
          expect([sample.slice(0, end), first]).toEqual([[...given[place]!.ids], given[place]!.first]);
          expect(sample.slice(end).every((id) => id === 0)).toBe(true);
          return place;
        });
      });
      expect(places.slice().sort((left, right) => left - right)).toEqual(given.map((_, place) => place));
    }),
  );
});

test('the longest come first, and no group is filled up more than the next longer one needs', () => {
  fc.assert(
    fc.property(sequences, (given) => {
      const ends = batchSequences(given).flatMap(({ samples }) => samples.map(({ end }) => end));
      expect(ends).toEqual(ends.slice().sort((left, right) => right - left));
    }),
  );
});

test('sequences of one length are grouped as calibration samples are', () => {
  const ids = Int32Array.from({ length: 19 * 3 }, (_, index) => index + 1);
  expect(batchSequences(sequencesOfWindows(ids, 3, 3)).map(({ group }) => ({ ...group, tokenIds: [...group.tokenIds] }))).toEqual(
    splitIntoGroups(ids, 19, 3).map((group) => ({ ...group, tokenIds: [...group.tokenIds] })),
  );
});
