import type { CalibrationGroup } from '@secateur/proto/statistics';
import { SecateurError } from '../errors.js';

/** Samples of a calibration group: the unit of distribution and of summation, whatever the number of nodes. */
export const CALIBRATION_GROUP_SAMPLES = 8;

/** The groups of so many samples: consecutive ones; the last group may be shorter. */
export function groupSamples(samples: number, perGroup = CALIBRATION_GROUP_SAMPLES): Pick<CalibrationGroup, 'index' | 'samples'>[] {
  return Array.from({ length: Math.ceil(samples / perGroup) }, (_, index) => ({
    index,
    samples: Math.min(perGroup, samples - index * perGroup),
  }));
}

/** Cuts token ids [samples, sequenceLength] into their groups. */
export function splitIntoGroups(
  tokenIds: Int32Array,
  samples: number,
  sequenceLength: number,
  perGroup = CALIBRATION_GROUP_SAMPLES,
): CalibrationGroup[] {
  if (tokenIds.length !== samples * sequenceLength) {
    const expected = `${samples} samples of ${sequenceLength} tokens have ${samples * sequenceLength}`;
    throw new SecateurError('INVALID_DATA', `There are ${tokenIds.length} token ids; ${expected}.`);
  }
  return groupSamples(samples, perGroup).map((group) => {
    const first = group.index * perGroup;
    const ids = tokenIds.subarray(first * sequenceLength, (first + group.samples) * sequenceLength);
    return { ...group, sequenceLength, tokenIds: new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength) };
  });
}

/**
 * Gives each group to a slot so that loads stay even: always to the slot with the fewest, the first of equals.
 * `loads`: groups each slot has already. Returns the groups of each slot, in order.
 */
export function assignGroups(groupIndices: readonly number[], loads: readonly number[]): number[][] {
  const counts = [...loads];
  const assigned = counts.map((): number[] => []);
  for (const index of groupIndices) {
    const slot = counts.indexOf(Math.min(...counts));
    assigned[slot]?.push(index);
    counts[slot] = (counts[slot] ?? 0) + 1;
  }
  return assigned;
}
