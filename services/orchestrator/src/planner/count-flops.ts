import { TensorRole } from '@secateur/proto/model';
import type { JobInput } from './job-plan.js';
import { countTokens } from './workload.js';

/** Floating-point operations of the dense matrix products of each step; attention and everything else come on top. */
export function countFlops({ model, calibration, measurement }: JobInput): Record<string, number> {
  const perToken = (block: (typeof model.blocks)[number], withDown: boolean): number =>
    block.projections
      .filter(({ role }) => withDown || role !== TensorRole.DOWN_WEIGHT)
      .reduce((sum, { rows, columns }) => sum + 2 * rows * columns, 0);
  const overBlocks = (tokens: number, blocks: typeof model.blocks, withDown: boolean): number =>
    tokens * blocks.reduce((sum, block) => sum + perToken(block, withDown), 0);
  const measuring = (): { propagate: number; measure: number } => {
    const { vocabularySize, hiddenSize } = model.architecture;
    const scored = (measurement?.sequences ?? []).reduce((sum, { ids, first }) => sum + ids.length - first, 0);
    const groups = (measurement?.batches ?? []).map(({ group }) => group);
    return { propagate: overBlocks(countTokens(groups), model.blocks, true), measure: 2 * vocabularySize * hiddenSize * scored };
  };
  if (calibration === undefined) return measuring();
  const tokens = countTokens(calibration.groups);
  const { propagate, measure } = measuring();
  return {
    // Statistics do not need the last projection of a block.
    collect: overBlocks(tokens, model.blocks, false),
    allocate: overBlocks(calibration.tokens.samples, model.blocks, true),
    // Nobody reads what the last block would give.
    propagate: overBlocks(tokens, model.blocks.slice(0, -1), true),
    // Before and after.
    ...(measurement === undefined ? {} : { evaluate: 2 * (propagate + measure) }),
  };
}
