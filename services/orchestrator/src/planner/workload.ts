import {
  assignGroups,
  computedBudgetOf,
  groupSamples,
  hasDenseTargets,
  possibleTargets,
  SecateurError,
  selectProjections,
  type ModelPlan,
  type PlannedBlock,
  type ProjectionTargets,
} from '@secateur/core';
import { Allocation, LayerQuality, Repair, RowQuality, Score } from '@secateur/proto/allocation';
import { LayerBudget, Propagation, type JobSpec, type PruneSpec } from '@secateur/proto/job';
import type { Architecture, Compute, HiddenStates, ShardDescriptor } from '@secateur/proto/model';
import { BlockMetric, type Workload } from '@secateur/proto/plan';
import { describeLayout, type GroupOutline, type InputOutline, type InputRequest } from './job-plan.js';
import { NO_TARGETS } from './targets.js';

/**
 * A part of a job that asks one kind of work of its nodes: to calibrate and prune, to measure, or to find out in one of three ways how much each
 * layer is to drop.
 */
export interface JobWork {
  readonly use: 'calibrate' | 'measure' | 'count outliers' | 'find eigenvalues' | 'measure sensitivity';
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly allocation: Allocation;
  readonly score: Score;
  /** Of each calibration sample, to judge rows on; 0 for the inputs of its last token. */
  readonly sketches: number;
  readonly propagation: Propagation;
  readonly repair: Repair;
  /** Of a repair that fits. */
  readonly fitSteps: number;
  readonly swaps: boolean;
  /** Repairs bring the model back to the dense one. */
  readonly denseTargets: boolean;
  readonly layerQuality: LayerQuality;
  readonly rowQuality: RowQuality;
}

const NOTHING_ALLOCATED = {
  allocation: Allocation.UNSPECIFIED,
  score: Score.UNSPECIFIED,
  sketches: 0,
  layerQuality: LayerQuality.UNSPECIFIED,
  rowQuality: RowQuality.UNSPECIFIED,
  propagation: Propagation.UNSPECIFIED,
  repair: Repair.NONE,
  fitSteps: 0,
  swaps: false,
  denseTargets: false,
};

/** Measuring with the numbers of a job. */
export function measuringWith(numbers: Pick<JobWork, 'compute' | 'hiddenStates'>): JobWork {
  return withoutAllocation('measure', numbers);
}

/** What has to be done before a model can be pruned to learn how much each layer drops; nothing where that is known. */
export function budgetingWith(spec: PruneSpec): JobWork | undefined {
  switch (spec.layerBudget) {
    case LayerBudget.OWL:
      return withoutAllocation('count outliers', spec);
    case LayerBudget.ALPHA:
      return withoutAllocation('find eigenvalues', spec);
    case LayerBudget.OPTIMAL:
      return withoutAllocation('measure sensitivity', spec);
    default:
      return undefined;
  }
}

function withoutAllocation(use: JobWork['use'], { compute, hiddenStates }: Pick<JobWork, 'compute' | 'hiddenStates'>): JobWork {
  return { use, compute, hiddenStates, ...NOTHING_ALLOCATED };
}

/** What a job reads, and the kinds of work it consists of, what its kind says first. Its defaults are filled in. */
export function workOf(kind: JobSpec['kind']): { readonly input: Omit<InputRequest, 'allowedRoots'>; readonly works: readonly JobWork[] } {
  switch (kind?.$case) {
    case 'prune': {
      const spec = kind.value;
      const { model, calibration, compute, hiddenStates, sparsity, options, selection, rowSparsities, propagation } = spec;
      const { evaluation: data } = spec;
      const select = (plan: ModelPlan): ProjectionTargets => selectProjections(plan, sparsity, selection);
      const { allocation, score, layerQuality, rowQuality } = options ?? NOTHING_ALLOCATED;
      const repair = spec.repair?.method ?? Repair.NONE;
      const fitSteps = spec.repair?.iterations ?? 0;
      const { sketches } = spec;
      const swaps = spec.swap !== undefined;
      const denseTargets = hasDenseTargets(spec);
      const allocating = { allocation, score, sketches, layerQuality, rowQuality, propagation, repair, fitSteps, swaps, denseTargets };
      const pruning: JobWork = { use: 'calibrate', compute, hiddenStates, ...allocating };
      const file = spec.layerBudgetOptions?.file ?? '';
      const input = {
        model,
        select,
        ratios: file === '' ? undefined : { file, sparsity },
        computedBudget: (architecture: Architecture) => computedBudgetOf(spec, architecture),
        rowSparsities,
        calibration: calibration && { data: calibration, holdsOut: swaps },
        measurement: data && { data, stride: 0, tasks: [] },
      };
      const budgeting = budgetingWith(spec);
      const works = [pruning, ...(budgeting === undefined ? [] : [budgeting]), ...(data === undefined ? [] : [measuringWith(spec)])];
      return { input, works };
    }
    case 'evaluate': {
      const { model, data, stride, tasks } = kind.value;
      const measurement = { data, stride, tasks };
      return { input: { model, ...NO_TARGETS, calibration: undefined, measurement }, works: [measuringWith(kind.value)] };
    }
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** The groups that a kind of work runs on. */
export function groupsOf(input: InputOutline, { use }: JobWork): readonly GroupOutline[] {
  const { calibration, measurement } = input;
  switch (use) {
    case 'measure sensitivity':
      return calibration === undefined ? [] : outlineSingles(triedSamples(input), calibration.tokens.sequenceLength);
    case 'calibrate':
    case 'count outliers':
      return calibration?.groups ?? [];
    case 'measure':
      return measurement?.batches.map(({ group }) => group) ?? [];
    case 'find eigenvalues':
      return [];
  }
}

/** Calibration samples on which projections are tried; each is a group of its own, so that as many nodes can share them. */
export function triedSamples({ calibration, computedBudget }: InputOutline): number {
  return computedBudget?.rule === 'optimal' ? Math.min(computedBudget.samples, calibration?.tokens.samples ?? 0) : 0;
}

function outlineSingles(samples: number, sequenceLength: number): GroupOutline[] {
  return groupSamples(samples, 1).map((group) => ({ ...group, sequenceLength }));
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
  const { model, calibration } = input;
  const { use, allocation, score, sketches, layerQuality, rowQuality, propagation, repair, swaps, denseTargets } = work;
  const all = groupsOf(input, work);
  const bytesOf = ({ shard }: PlannedBlock): number => storedBytes(describeLayout(shard));
  const largest = model.blocks.reduce((found, block) => (bytesOf(block) > bytesOf(found) ? block : found));
  return {
    embedding: use === 'find eigenvalues' ? undefined : describeLayout(model.embedding),
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
    repair,
    swaps,
    layerQuality,
    rowQuality,
    sparsities: droppedIn(use, input),
    metric: METRICS[use],
    denseTargets,
    maskedInStages: use === 'calibrate' && propagation !== Propagation.DENSE_BLOCK,
  };
}

const METRICS: Readonly<Record<JobWork['use'], BlockMetric>> = {
  calibrate: BlockMetric.UNSPECIFIED,
  measure: BlockMetric.UNSPECIFIED,
  'count outliers': BlockMetric.OUTLIERS,
  'find eigenvalues': BlockMetric.SPECTRUM,
  'measure sensitivity': BlockMetric.SENSITIVITY,
};

/** Shares that projections are pruned with, or have been when the job measures what it has pruned. */
function droppedIn(use: JobWork['use'], input: InputOutline): number[] {
  if (use === 'calibrate' || use === 'measure') return sparsitiesOf(input);
  return use === 'measure sensitivity' ? [...new Set(input.targets.values())] : [];
}

/** What projections drop, or may drop where that is not known yet; each once. */
function sparsitiesOf({ targets, computedBudget }: InputOutline): number[] {
  const known = new Set(targets.values());
  if (computedBudget === undefined) return [...known];
  return [...new Set([...known].flatMap((sparsity) => [sparsity, ...possibleTargets(sparsity, computedBudget)]))];
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
