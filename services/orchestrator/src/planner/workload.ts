import { assignGroups, SecateurError, type PlannedBlock } from '@secateur/core';
import { Allocation, Score } from '@secateur/proto/allocation';
import type { JobSpec } from '@secateur/proto/job';
import type { Compute, HiddenStates, ShardDescriptor } from '@secateur/proto/model';
import type { Workload } from '@secateur/proto/plan';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import { describeLayout, type InputRequest, type JobInput } from './job-plan.js';

/** A part of a job that asks one kind of work of its nodes: to calibrate and prune, or to measure. */
export interface JobWork {
  readonly use: 'calibrate' | 'measure';
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly allocation: Allocation;
  readonly score: Score;
  /** Share of the weights that are dropped. */
  readonly sparsity: number;
}

/** Measuring with the numbers of a job. */
export function measuringWith({ compute, hiddenStates }: Pick<JobWork, 'compute' | 'hiddenStates'>): JobWork {
  return { use: 'measure', compute, hiddenStates, sparsity: 0, allocation: Allocation.UNSPECIFIED, score: Score.UNSPECIFIED };
}

/** What a job reads, and the kinds of work it consists of. Its defaults are filled in. */
export function workOf(kind: JobSpec['kind']): { readonly input: Omit<InputRequest, 'allowedRoots'>; readonly works: readonly JobWork[] } {
  switch (kind?.$case) {
    case 'prune': {
      const { model, calibration, compute, hiddenStates, sparsity, options, evaluation: data } = kind.value;
      const { allocation, score } = options ?? { allocation: Allocation.TRIM, score: Score.WANDA };
      const pruning: JobWork = { use: 'calibrate', compute, hiddenStates, sparsity, allocation, score };
      if (data === undefined) return { input: { model, calibration, measurement: undefined }, works: [pruning] };
      return { input: { model, calibration, measurement: { data, stride: 0, tasks: [] } }, works: [pruning, measuringWith(kind.value)] };
    }
    case 'evaluate': {
      const { model, data, stride, tasks } = kind.value;
      return { input: { model, calibration: undefined, measurement: { data, stride, tasks } }, works: [measuringWith(kind.value)] };
    }
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** The groups that a kind of work runs on. */
export function groupsOf({ calibration, measurement }: JobInput, { use }: JobWork): readonly CalibrationGroup[] {
  return (use === 'calibrate' ? calibration?.groups : measurement?.batches.map(({ group }) => group)) ?? [];
}

/** The groups of each of so many nodes that share them anew. */
export function shareGroups(groups: readonly CalibrationGroup[], nodes: number): CalibrationGroup[][] {
  const shares = assignGroups(
    groups.map((_, position) => position),
    new Array<number>(nodes).fill(0),
  );
  return shares.map((positions) => positions.map((position) => groups[position]!));
}

/** What a node that keeps these of the groups will be asked to do. */
export function workloadOf(input: JobInput, work: JobWork, kept: readonly CalibrationGroup[]): Workload {
  const { model, calibration } = input;
  const { use, allocation, score, sparsity } = work;
  const all = groupsOf(input, work);
  const bytesOf = ({ shard }: PlannedBlock): number => storedBytes(describeLayout(input, shard));
  const largest = model.blocks.reduce((found, block) => (bytesOf(block) > bytesOf(found) ? block : found));
  return {
    embedding: describeLayout(input, model.embedding),
    block: describeLayout(input, largest.shard),
    head: use === 'measure' ? describeLayout(input, model.head) : undefined,
    groups: kept.length,
    samplesPerGroup: largestOf(all, ({ samples }) => samples),
    sequenceLength: largestOf(all, ({ sequenceLength }) => sequenceLength),
    tokens: countTokens(kept),
    allocationSamples: use === 'calibrate' ? (calibration?.tokens.samples ?? 0) : 0,
    allocation,
    sparsity,
    score,
  };
}

/** The most that any of so many nodes will be asked to do. */
export function largestWorkload(input: JobInput, work: JobWork, nodes: number): Workload {
  const shares = shareGroups(groupsOf(input, work), nodes);
  return workloadOf(
    input,
    work,
    shares.reduce((found, share) => (countTokens(share) > countTokens(found) ? share : found)),
  );
}

export function countTokens(groups: readonly CalibrationGroup[]): number {
  return groups.reduce((sum, { samples, sequenceLength }) => sum + samples * sequenceLength, 0);
}

export function storedBytes({ tensors }: ShardDescriptor): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

function largestOf(groups: readonly CalibrationGroup[], sizeOf: (group: CalibrationGroup) => number): number {
  return groups.reduce((largest, group) => Math.max(largest, sizeOf(group)), 0);
}
