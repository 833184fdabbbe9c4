import { RE2JS } from 're2js';
import type { ProjectionSelection } from '@secateur/proto/job';
import { SecateurError, type FieldViolation } from '../errors.js';
import type { ModelPlan, PlannedProjection } from '../model/model-plan.js';

/** Sparsity of each projection that is pruned, by the name of its tensor. Those that are left out are not in it. */
export type ProjectionTargets = ReadonlyMap<string, number>;

const FIELD = 'prune.selection';
const MAXIMUM_PATTERNS = 100;
const MAXIMUM_PATTERN_LENGTH = 500;
const MAXIMUM_SKIPPED_LAYERS = 10_000;

/** A regular expression that takes time in proportion to what it searches, whatever it is (docs/decisions/patterns-of-projections.md). */
type Pattern = ReturnType<typeof RE2JS.compile>;

/** Name in the checkpoint without `.weight`: what people know a projection by. */
export function projectionName({ name }: Pick<PlannedProjection, 'name'>): string {
  return name.replace(/\.weight$/, '');
}

/** The block of a projection by its name: the first number in it, as in `model.layers.3.mlp.up_proj`. */
export function layerOfProjection(name: string): number {
  return Number(/(?:^|\.)(\d+)\./.exec(name)?.[1]);
}

/** What is wrong with a selection whatever the model. */
export function findSelectionViolations({ only, skip, skipLayers, targets }: ProjectionSelection): FieldViolation[] {
  const violations: FieldViolation[] = [];
  const requireFew = (field: string, count: number, maximum: number): void => {
    if (count > maximum) violations.push({ field: `${FIELD}.${field}`, description: `must be at most ${maximum}, not ${count}` });
  };
  const requirePattern = (field: string, pattern: string): void => {
    const reason = whyInvalid(pattern);
    if (reason !== undefined) violations.push({ field: `${FIELD}.${field}`, description: `${quote(pattern)} ${reason}` });
  };
  requireFew('only', only.length, MAXIMUM_PATTERNS);
  requireFew('skip', skip.length, MAXIMUM_PATTERNS);
  requireFew('targets', targets.length, MAXIMUM_PATTERNS);
  requireFew('skip_layers', skipLayers.length, MAXIMUM_SKIPPED_LAYERS);
  for (const pattern of only) requirePattern('only', pattern);
  for (const pattern of skip) requirePattern('skip', pattern);
  for (const { pattern, sparsity } of targets) {
    requirePattern('targets', pattern);
    if (!(sparsity > 0 && sparsity < 1)) {
      const description = `${quote(pattern)} must have a sparsity above 0 and below 1, not ${sparsity}; skip leaves projections out`;
      violations.push({ field: `${FIELD}.targets`, description });
    }
  }
  return violations;
}

/** What a valid selection says about a model. INVALID_REQUEST when a part of it concerns nothing, or nothing is left to prune. */
export function selectProjections(model: ModelPlan, sparsity: number, selection: ProjectionSelection | undefined): ProjectionTargets {
  const projections = model.blocks.flatMap((block) => block.projections.map((projection) => ({ ...projection, layer: block.index })));
  if (selection === undefined) return new Map(projections.map(({ name }) => [name, sparsity]));
  const names = projections.map(projectionName);
  refuseWhatConcernsNothing(selection, names, model.blocks.length);
  const only = compileAll(selection.only);
  const skip = compileAll(selection.skip);
  const targets = selection.targets.map((target) => ({ ...target, compiled: RE2JS.compile(target.pattern) }));
  const skippedLayers = new Set(selection.skipLayers);
  const selected = projections
    .filter(({ layer }) => !skippedLayers.has(layer))
    .map((projection) => ({ projection, shortName: projectionName(projection) }))
    .filter(({ shortName }) => (only.length === 0 || isFound(only, shortName)) && !isFound(skip, shortName));
  if (selected.length === 0) throw refuse([{ field: FIELD, description: 'leaves no projection to prune' }]);
  return new Map(
    selected.map(({ projection, shortName }) => [
      projection.name,
      targets.find(({ compiled }) => isFound([compiled], shortName))?.sparsity ?? sparsity,
    ]),
  );
}

/** Share of the weights of all projections that is to be dropped; those that are left out count as whole. */
export function meanTarget(projections: readonly PlannedProjection[], targets: ProjectionTargets): number {
  const distinct = new Set(projections.map(({ name }) => targets.get(name) ?? 0));
  // Exactly what was asked for where all are alike.
  if (distinct.size === 1) return [...distinct][0]!;
  const weights = projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  return projections.reduce((sum, { name, rows, columns }) => sum + (targets.get(name) ?? 0) * rows * columns, 0) / weights;
}

function refuseWhatConcernsNothing(
  { only, skip, skipLayers, targets }: ProjectionSelection,
  names: readonly string[],
  layers: number,
): void {
  const patterns = [
    ...only.map((pattern) => ({ field: 'only', pattern })),
    ...skip.map((pattern) => ({ field: 'skip', pattern })),
    ...targets.map(({ pattern }) => ({ field: 'targets', pattern })),
  ];
  const missing = skipLayers.filter((layer) => layer >= layers);
  const violations = [
    ...patterns
      .filter(({ pattern }) => !names.some((name) => isFound(compileAll([pattern]), name)))
      .map(({ field, pattern }) => ({
        field: `${FIELD}.${field}`,
        description: `${quote(pattern)} is found in no projection; they have names such as ${names[0] ?? ''}`,
      })),
    ...missing.slice(0, 1).map((layer) => {
      const blocks = missing.length === 1 ? `${layer} is no block` : `${layer} and ${missing.length - 1} others are no blocks`;
      return { field: `${FIELD}.skip_layers`, description: `${blocks}; the model has 0 to ${layers - 1}` };
    }),
  ];
  if (violations.length > 0) throw refuse(violations);
}

function refuse(violations: readonly FieldViolation[]): SecateurError {
  const text = violations.map(({ field, description }) => `${field} ${description}`).join('; ');
  return new SecateurError('INVALID_REQUEST', `The job cannot be run: ${text}.`, { violations });
}

function whyInvalid(pattern: string): string | undefined {
  if (pattern === '') return 'must not be empty';
  if (pattern.length > MAXIMUM_PATTERN_LENGTH) return `must be at most ${MAXIMUM_PATTERN_LENGTH} characters long`;
  try {
    RE2JS.compile(pattern);
    return undefined;
  } catch (error) {
    return `is not a regular expression of RE2: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function compileAll(patterns: readonly string[]): Pattern[] {
  return patterns.map((pattern) => RE2JS.compile(pattern));
}

function isFound(patterns: readonly Pattern[], name: string): boolean {
  return patterns.some((pattern) => pattern.matcher(name).find());
}

function quote(pattern: string): string {
  return JSON.stringify(pattern);
}
