import { assignGroups, SecateurError, selectProjections, type ModelPlan, type PlannedBlock, type ProjectionTargets } from '@secateur/core';
import { Allocation, Score } from '@secateur/proto/allocation';
import type { JobSpec } from '@secateur/proto/job';
import type { Compute, HiddenStates, ShardDescriptor } from '@secateur/proto/model';
import type { Workload } from '@secateur/proto/plan';
import { describeLayout, type GroupOutline, type InputOutline, type InputRequest } from './job-plan.js';

/** A part of a job that asks one kind of work of its nodes: to calibrate and prune, or to measure. */
export interface JobWork {
  readonly use: 'calibrate' | 'measure';
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly allocation: Allocation;
  readonly score: Score;
  /** Of each calibration sample, to judge rows on; 0 for the inputs of its last token. */
  readonly sketches: number;
}

/** Measuring with the numbers of a job. */
export function measuringWith({ compute, hiddenStates }: Pick<JobWork, 'compute' | 'hiddenStates'>): JobWork {
  return { use: 'measure', compute, hiddenStates, allocation: Allocation.UNSPECIFIED, score: Score.UNSPECIFIED, sketches: 0 };
}

/** What a job reads, and the kinds of work it consists of. Its defaults are filled in. */
export function workOf(kind: JobSpec['kind']): { readonly input: Omit<InputRequest, 'allowedRoots'>; readonly works: readonly JobWork[] } {
  switch (kind?.$case) {
    case 'prune': {
      const { model, calibration, compute, hiddenStates, sparsity, options, selection, rowSparsities, sketches } = kind.value;
      const select = (plan: ModelPlan): ProjectionTargets => selectProjections(plan, sparsity, selection);
      const { allocation, score } = options ?? { allocation: Allocation.TRIM, score: Score.WANDA };
      const pruning: JobWork = { use: 'calibrate', compute, hiddenStates, allocation, score, sketches };
      const input = { model, select, rowSparsities, calibration };
      const { evaluation: data } = kind.value;
      if (data === undefined) return { input: { ...input, measurement: undefined }, works: [pruning] };
      const measurement = { data, stride: 0, tasks: [] };
      return { input: { ...input, measurement }, works: [pruning, measuringWith(kind.value)] };
    }
    case 'evaluate': {
      const { model, data, stride, tasks } = kind.value;
      const select = (): ProjectionTargets => new Map();
      const measurement = { data, stride, tasks };
      return { input: { model, select, rowSparsities: '', calibration: undefined, measurement }, works: [measuringWith(kind.value)] };
    }
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** The groups that a kind of work runs on. */
export function groupsOf({ calibration, measurement }: InputOutline, { use }: JobWork): readonly GroupOutline[] {
  return (use === 'calibrate' ? calibration?.groups : measurement?.batches.map(({ group }) => group)) ?? [];
}

/** The groups of each of so many nodes that share them anew. */
export function shareGroups(groups: readonly GroupOutline[], nodes: number): GroupOutline[][] {
  const shares = assignGroups(
    groups.map((_, position) => position),
    new Array<number>(nodes).fill(0),
  );
  return shares.map((positions) => positions.map((position) => groups[position]!));
}

/** What a node that keeps these of the groups will be asked to do. */
export function workloadOf(input: InputOutline, work: JobWork, kept: readonly GroupOutline[]): Workload {
  const { model, targets, calibration } = input;
  const { use, allocation, score, sketches } = work;
  const all = groupsOf(input, work);
  const bytesOf = ({ shard }: PlannedBlock): number => storedBytes(describeLayout(shard));
  const largest = model.blocks.reduce((found, block) => (bytesOf(block) > bytesOf(found) ? block : found));
  return {
    embedding: describeLayout(model.embedding),
    block: describeLayout(largest.shard),
    head: use === 'measure' ? describeLayout(model.head) : undefined,
    groups: kept.length,
    samplesPerGroup: largestOf(all, ({ samples }) => samples),
    sequenceLength: largestOf(all, ({ sequenceLength }) => sequenceLength),
    tokens: countTokens(kept),
    allocationSamples: use === 'calibrate' ? (calibration?.tokens.samples ?? 0) * Math.max(1, sketches) : 0,
    sketches,
    allocation,
    score,
    // Nothing is dropped while a model is measured.
    sparsities: use === 'calibrate' ? [...new Set(targets.values())] : [],
  };
}

/** The most that any of so many nodes will be asked to do. */
export function largestWorkload(input: InputOutline, work: JobWork, nodes: number): Workload {
  const shares = shareGroups(groupsOf(input, work), nodes);
  return workloadOf(
    input,
    work,
    shares.reduce((found, share) => (countTokens(share) > countTokens(found) ? share : found)),
  );
}

export function countTokens(groups: readonly GroupOutline[]): number {
  return groups.reduce((sum, { samples, sequenceLength }) => sum + samples * sequenceLength, 0);
}

export function storedBytes({ tensors }: ShardDescriptor): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

function largestOf(groups: readonly GroupOutline[], sizeOf: (group: GroupOutline) => number): number {
  return groups.reduce((largest, group) => Math.max(largest, sizeOf(group)), 0);
}
