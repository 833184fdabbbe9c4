import type { CalibrationGroup } from '@secateur/proto/statistics';
import { CALIBRATION_GROUP_SAMPLES } from '../planning/groups.js';
import type { ScoredSequence } from './scored-sequence.js';

/** A group of sequences, and which tokens of each are measured. */
export interface MeasuredGroup {
  readonly group: CalibrationGroup;
  /** Of each sample: its place in the list of sequences, and the positions that are scored. */
  readonly samples: readonly { readonly place: number; readonly first: number; readonly end: number }[];
}

/**
 * Groups of sequences of about the same length. What is shorter than the longest of its group is filled up at its end, which no token
 * before sees. Equal lengths keep their order; the longest come first, so that a lack of memory shows at once.
 */
export function batchSequences(sequences: readonly ScoredSequence[]): MeasuredGroup[] {
  const order = sequences.map((_, place) => place).sort((left, right) => sequences[right]!.ids.length - sequences[left]!.ids.length);
  const groups: MeasuredGroup[] = [];
  for (let start = 0; start < order.length; start += CALIBRATION_GROUP_SAMPLES) {
    const places = order.slice(start, start + CALIBRATION_GROUP_SAMPLES);
    const sequenceLength = sequences[places[0]!]!.ids.length;
    const ids = new Int32Array(places.length * sequenceLength);
    for (const [row, place] of places.entries()) ids.set(sequences[place]!.ids, row * sequenceLength);
    groups.push({
      group: { index: groups.length, samples: places.length, sequenceLength, tokenIds: new Uint8Array(ids.buffer) },
      samples: places.map((place) => ({ place, first: sequences[place]!.first, end: sequences[place]!.ids.length })),
    });
  }
  return groups;
}
