import { meanTarget, SecateurError, type ModelPlan, type ProjectionTargets } from '@secateur/core';
import { readFloatTensors } from '@secateur/checkpoint';

/** Float32 little-endian [rows] by the name of the projection's tensor. */
export type RowSparsities = ReadonlyMap<string, Uint8Array>;

/** How far the given sparsities may be from the job's, for they are rounded and rows drop whole weights. */
const TOLERANCE = 0.005;

/**
 * A sparsity for each row of each projection that is pruned, as a job writes them in `row_sparsities.safetensors`; none without a path.
 * Throws INVALID_DATA naming what is missing, has another shape, is no share, or drops another share of the model than the job asks for.
 */
export async function loadRowSparsities(
  path: string,
  { model, targets }: { readonly model: ModelPlan; readonly targets: ProjectionTargets },
  allowedRoots: readonly string[],
): Promise<RowSparsities> {
  if (path === '') return new Map();
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}: ${what}.`);
  const projections = model.blocks.flatMap((block) => block.projections).filter(({ name }) => targets.has(name));
  const sparsity = meanTarget(projections, targets);
  const found = await readFloatTensors(
    path,
    projections.map(({ name, rows }) => ({ name, length: rows })),
    { allowedRoots },
  );
  let dropped = 0;
  let weights = 0;
  for (const { name, rows, columns } of projections) {
    const values = found.get(name)!;
    const wrong = values.findIndex((value) => !(value >= -1 && value <= 2));
    if (wrong !== -1) throw fail(`${name} has ${values[wrong]} in row ${wrong}, which is no share of a row`);
    dropped += columns * values.reduce((sum, value) => sum + Math.min(Math.max(value, 0), 1), 0);
    weights += rows * columns;
  }
  if (Math.abs(dropped / weights - sparsity) > TOLERANCE) {
    throw fail(
      `its rows drop ${((100 * dropped) / weights).toFixed(2)} % of the weights, but the job asks for ${sparsity}; ask for ${(dropped / weights).toFixed(4)}`,
    );
  }
  return new Map([...found].map(([name, values]) => [name, new Uint8Array(values.buffer, values.byteOffset, values.byteLength)]));
}
