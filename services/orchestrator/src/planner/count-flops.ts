import { planStages, projectionsRun, type PlannedBlock, type PlannedProjection } from '@secateur/core';
import { Propagation } from '@secateur/proto/job';
import { lastPrunedBlock, prunedProjections, type InputOutline } from './job-plan.js';
import { repairFlops } from './repair-flops.js';
import { countTokens, triedSamples, type JobWork } from './workload.js';

/**
 * Floating-point operations of the matrix products of each step, with every weight counted, dropped or not; attention and everything else
 * come on top. Nodes that go on from where the pass of a stage before ended do less.
 */
export function countFlops(input: InputOutline, works: readonly JobWork[]): Record<string, number> {
  const { model, calibration, measurement } = input;
  const perToken = (projections: readonly PlannedProjection[]): number =>
    projections.reduce((sum, { rows, columns }) => sum + 2 * rows * columns, 0);
  const overBlocks = (
    tokens: number,
    blocks: readonly PlannedBlock[],
    used: (block: PlannedBlock) => readonly PlannedProjection[],
  ): number => tokens * blocks.reduce((sum, block) => sum + perToken(used(block)), 0);
  const whole = ({ projections }: PlannedBlock): readonly PlannedProjection[] => projections;
  const measuring = (): { propagate: number; measure: number } => {
    const { vocabularySize, hiddenSize, embeddingSize } = model.architecture;
    const head = vocabularySize * (embeddingSize || hiddenSize) + embeddingSize * hiddenSize;
    const scored = (measurement?.sequences ?? []).reduce((sum, { ids, first }) => sum + ids.length - first, 0);
    const groups = (measurement?.batches ?? []).map(({ group }) => group);
    return { propagate: overBlocks(countTokens(groups), model.blocks, whole), measure: 2 * head * scored };
  };
  const pruning = works.find(({ use }) => use === 'calibrate');
  if (calibration === undefined || pruning === undefined) return measuring();
  const pruned = (block: PlannedBlock): PlannedProjection[] => prunedProjections(input, block);
  const tokens = countTokens(calibration.groups);
  const collected = (propagation: Propagation) => (block: PlannedBlock) =>
    planStages(pruned(block), propagation).flatMap((stage) => projectionsRun(block, stage));
  const propagated = overBlocks(tokens, model.blocks.slice(0, lastPrunedBlock(input)), whole);
  const budgetFlops = (): Record<string, number> => {
    switch (input.computedBudget?.rule) {
      case 'owl':
        return { budget: overBlocks(tokens, model.blocks, collected(Propagation.DENSE_BLOCK)) + propagated };
      case 'alpha':
        return { budget: model.blocks.flatMap(pruned).reduce((sum, { rows, columns }) => sum + spectrumFlops(rows, columns), 0) };
      case 'optimal': {
        const tried = triedSamples(input) * calibration.tokens.sequenceLength;
        // The block as it is, and once more for each projection that is pruned.
        const runs = model.blocks.reduce((sum, block) => sum + (1 + pruned(block).length) * perToken(whole(block)), 0);
        const moved = overBlocks(tried, model.blocks.slice(0, lastPrunedBlock(input)), whole);
        return { budget: overBlocks(tried, model.blocks, collected(Propagation.DENSE_BLOCK)) + tried * runs + moved };
      }
      case undefined:
        return {};
    }
  };
  const { propagate, measure } = measuring();
  // The dense one passes beside the pruned one.
  const models = pruning.denseTargets ? 2 : 1;
  const repairs = model.blocks.map((block) => repairFlops(pruned(block), tokens, pruning));
  const gram = repairs.reduce((sum, flops) => sum + flops.gram, 0);
  const repair = repairs.reduce((sum, flops) => sum + flops.repair, 0);
  return {
    ...budgetFlops(),
    collect: models * overBlocks(tokens, model.blocks, collected(pruning.propagation)),
    ...(gram === 0 ? {} : { gram, repair }),
    allocate: overBlocks(calibration.tokens.samples * Math.max(1, pruning.sketches), model.blocks, pruned),
    propagate: models * propagated,
    // Before and after.
    ...(measurement === undefined ? {} : { evaluate: 2 * (propagate + measure) }),
  };
}

/** Half of the product of a weight with itself, and its reduction to a tridiagonal matrix. */
function spectrumFlops(rows: number, columns: number): number {
  const size = Math.min(rows, columns);
  return size * size * Math.max(rows, columns) + (4 / 3) * size ** 3;
}
