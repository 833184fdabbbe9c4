import { targetsOfRatios, type ComputedBudget, type ModelPlan, type ProjectionTargets } from '@secateur/core';
import { readRatios } from '@secateur/checkpoint';
import type { Architecture } from '@secateur/proto/model';
import { loadRowSparsities, type RowSparsities } from './row-sparsities.js';

/** What decides how much of which projection is dropped. */
export interface TargetRequest {
  /** What is pruned of a model, each projection with the sparsity that it has when nothing else decides. */
  readonly select: (model: ModelPlan) => ProjectionTargets;
  /** File of ratios for blocks or projections, and the sparsity they must make together; undefined where none is given. */
  readonly ratios: { readonly file: string; readonly sparsity: number } | undefined;
  /** What computes the targets from the model when the job runs; undefined where they are known before. */
  readonly computedBudget: (architecture: Architecture) => ComputedBudget | undefined;
  /** File of row sparsities; empty where none are given. */
  readonly rowSparsities: string;
}

export interface Targets {
  /** What is pruned; nothing in a job that only measures. Where the targets are still to be computed, what they are on average. */
  readonly targets: ProjectionTargets;
  /** What is still to compute the targets; undefined where they are known. */
  readonly computedBudget: ComputedBudget | undefined;
  /** By the name of the projection's tensor, float32 little-endian [rows]; empty where none are given. */
  readonly rowSparsities: RowSparsities;
}

/** A request in which nothing is pruned. */
export const NO_TARGETS: TargetRequest = {
  select: () => new Map(),
  ratios: undefined,
  computedBudget: () => undefined,
  rowSparsities: '',
};

/** What a request says about a model, with the files that it names read and checked. */
export async function resolveTargets(request: TargetRequest, model: ModelPlan, allowedRoots: readonly string[]): Promise<Targets> {
  const { select, ratios, computedBudget } = request;
  const selected = select(model);
  const targets =
    ratios === undefined
      ? selected
      : targetsOfRatios(
          await readRatios(ratios.file, { allowedRoots }),
          { model, targets: selected },
          { sparsity: ratios.sparsity, source: ratios.file },
        );
  const rowSparsities = await loadRowSparsities(request.rowSparsities, { model, targets }, allowedRoots);
  return { targets, computedBudget: computedBudget(model.architecture), rowSparsities };
}
