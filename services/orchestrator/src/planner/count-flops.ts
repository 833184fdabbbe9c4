import { TensorRole } from '@secateur/proto/model';
import type { InputRequest, JobInput } from './job-plan.js';

/** Floating-point operations of the dense matrix products of each step; attention and everything else come on top. */
export function countFlops({ model, tokens }: JobInput, use: InputRequest['use']): Record<string, number> {
  const { samples, sequenceLength } = tokens;
  const count = samples * sequenceLength;
  const perToken = (block: (typeof model.blocks)[number], withDown: boolean): number =>
    block.projections
      .filter(({ role }) => withDown || role !== TensorRole.DOWN_WEIGHT)
      .reduce((sum, { rows, columns }) => sum + 2 * rows * columns, 0);
  const overBlocks = (blocks: typeof model.blocks, withDown: boolean): number =>
    count * blocks.reduce((sum, block) => sum + perToken(block, withDown), 0);
  if (use === 'evaluate') {
    const { vocabularySize, hiddenSize } = model.architecture;
    return { propagate: overBlocks(model.blocks, true), measure: 2 * vocabularySize * hiddenSize * samples * (sequenceLength - 1) };
  }
  return {
    // Statistics do not need the last projection of a block.
    collect: overBlocks(model.blocks, false),
    allocate: (samples / count) * overBlocks(model.blocks, true),
    // Nobody reads what the last block would give.
    propagate: overBlocks(model.blocks.slice(0, -1), true),
  };
}
