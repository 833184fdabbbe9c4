import { SecateurError } from '../errors.js';
import type { ModelPlan, PlannedBlock } from '../model/model-plan.js';
import { meanTarget, projectionName, type ProjectionTargets } from '../planning/select-projections.js';

/** Ratios by the names of blocks or projections, or in the order of either. */
export type GivenRatios = ReadonlyMap<string, number> | Float64Array;

/** How far the given ratios may be from the sparsity of the job, for they may be rounded. */
const TOLERANCE = 0.005;

/**
 * The targets that ratios give to the projections that are pruned: each its own, or else its block's. `source` is what they were read from.
 * Throws INVALID_DATA naming it and what is missing, what is no share or belongs to nothing in the model, or the sparsity that the ratios make
 * together when it is not the job's.
 */
export function targetsOfRatios(
  ratios: GivenRatios,
  { model, targets }: { readonly model: ModelPlan; readonly targets: ProjectionTargets },
  { sparsity, source }: { readonly sparsity: number; readonly source: string },
): ProjectionTargets {
  const refuse = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${source}: ${what}.`);
  const named = ratios instanceof Map ? ratios : nameRatios(ratios as Float64Array, model, refuse);
  const wrong = [...named].find(([, ratio]) => !(ratio > 0 && ratio < 1));
  if (wrong !== undefined) throw refuse(`${wrong[0]} has ${wrong[1]}; ratios are above 0 and below 1`);
  const found = findRatios(named, model, refuse);
  const pruned = model.blocks.flatMap((block) => block.projections).filter(({ name }) => targets.has(name));
  const missing = pruned.find(({ name }) => !found.has(name));
  if (missing !== undefined) throw refuse(`there is no ratio for ${projectionName(missing)}, nor for its block`);
  const given = new Map(pruned.map(({ name }) => [name, found.get(name)!]));
  const mean = meanTarget(pruned, given);
  if (Math.abs(mean - sparsity) > TOLERANCE) {
    throw refuse(
      `its ratios drop ${(100 * mean).toFixed(2)} % of the weights, but the job asks for ${sparsity}; ask for ${mean.toFixed(4)}`,
    );
  }
  return given;
}

type Refuse = (what: string) => SecateurError;

/** By the index of the block, or the name of the projection. */
function nameRatios(ratios: Float64Array, model: ModelPlan, refuse: Refuse): Map<string, number> {
  const projections = model.blocks.flatMap((block) => block.projections).map(projectionName);
  if (ratios.length === model.blocks.length) return new Map(Array.from(ratios, (ratio, index) => [String(index), ratio]));
  if (ratios.length === projections.length) return new Map(Array.from(ratios, (ratio, index) => [projections[index]!, ratio]));
  throw refuse(`it has ${ratios.length} ratios; the model has ${model.blocks.length} blocks with ${projections.length} projections`);
}

/** The ratio of each projection of the model that has one, by the name of its tensor. */
function findRatios(named: ReadonlyMap<string, number>, model: ModelPlan, refuse: Refuse): Map<string, number> {
  const blocks = new Map(model.blocks.flatMap((block) => blockNames(block).map((name) => [name, block])));
  const projections = new Map(model.blocks.flatMap((block) => block.projections).map(({ name }) => [projectionName({ name }), name]));
  const ofBlocks = new Map<number, number>();
  const found = new Map<string, number>();
  for (const [name, ratio] of named) {
    const block = blocks.get(name);
    const projection = projections.get(name);
    if (projection !== undefined) found.set(projection, ratio);
    else if (block === undefined)
      throw refuse(`the model has no block and no projection ${name}; it has ${[...projections.keys()][0] ?? ''}`);
    else if (ofBlocks.has(block.index)) throw refuse(`block ${block.index} has two ratios, one of them as ${name}`);
    else ofBlocks.set(block.index, ratio);
  }
  for (const block of model.blocks) {
    const ratio = ofBlocks.get(block.index);
    if (ratio === undefined) continue;
    for (const { name } of block.projections) if (!found.has(name)) found.set(name, ratio);
  }
  return found;
}

/** What people may call a block: `3`, `model.layers.3`. */
function blockNames({ index, projections }: PlannedBlock): string[] {
  return [String(index), ...projections.slice(0, 1).map(({ name }) => blockNameOf(name))];
}

/** Name of the block that a projection belongs to: what comes before its own, as in `model.layers.3`. */
export function blockNameOf(projection: string): string {
  return /^(?:.*?\.)?\d+(?=\.)/.exec(projection)?.[0] ?? projection;
}
