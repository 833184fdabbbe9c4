import { TensorRole } from '@secateur/proto/model';
import { lastPrunedBlock, prunedProjections, type InputOutline } from './job-plan.js';
import { countTokens } from './workload.js';

/**
 * Floating-point operations of the dense matrix products of each step; attention and everything else come on top. `sketches`: of each
 * calibration sample; 0 for its last inputs.
 */
export function countFlops(input: InputOutline, sketches: number): Record<string, number> {
  const { model, calibration, measurement } = input;
  const perToken = (block: (typeof model.blocks)[number], withDown: boolean): number =>
    block.projections
      .filter(({ role }) => withDown || role !== TensorRole.DOWN_WEIGHT)
      .reduce((sum, { rows, columns }) => sum + 2 * rows * columns, 0);
  const overBlocks = (tokens: number, blocks: typeof model.blocks, withDown: boolean): number =>
    tokens * blocks.reduce((sum, block) => sum + perToken(block, withDown), 0);
  const measuring = (): { propagate: number; measure: number } => {
    const { vocabularySize, hiddenSize, embeddingSize } = model.architecture;
    const head = vocabularySize * (embeddingSize || hiddenSize) + embeddingSize * hiddenSize;
    const scored = (measurement?.sequences ?? []).reduce((sum, { ids, first }) => sum + ids.length - first, 0);
    const groups = (measurement?.batches ?? []).map(({ group }) => group);
    return { propagate: overBlocks(countTokens(groups), model.blocks, true), measure: 2 * head * scored };
  };
  if (calibration === undefined) return measuring();
  const tokens = countTokens(calibration.groups);
  const { propagate, measure } = measuring();
  return {
    // Statistics do not need the last projection of a block, and no block of which nothing is pruned.
    collect: overBlocks(
      tokens,
      model.blocks.filter((block) => prunedProjections(input, block).length > 0),
      false,
    ),
    allocate: overBlocks(
      calibration.tokens.samples * Math.max(1, sketches),
      model.blocks.map((block) => ({ ...block, projections: prunedProjections(input, block) })),
      true,
    ),
    propagate: overBlocks(tokens, model.blocks.slice(0, lastPrunedBlock(input)), true),
    // Before and after.
    ...(measurement === undefined ? {} : { evaluate: 2 * (propagate + measure) }),
  };
}
