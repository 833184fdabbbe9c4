import { describe, expect, test } from '@jest/globals';
import { groupSamples, parseArchitecture, planShapes, type ProjectionTargets } from '@secateur/core';
import { Propagation } from '@secateur/proto/job';
import { Compute, DataType, HiddenStates } from '@secateur/proto/model';
import { Allocation, Repair, Score } from '@secateur/proto/allocation';
import { countFlops } from './count-flops.js';
import type { InputOutline } from './job-plan.js';
import { measuringWith, type JobWork } from './workload.js';

const SAMPLES = 12;
const LENGTH = 7;
const TOKENS = SAMPLES * LENGTH;

const MODEL = planShapes(
  parseArchitecture({
    model_type: 'llama',
    hidden_size: 16,
    intermediate_size: 40,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 50,
    max_position_embeddings: 64,
  }),
  DataType.BF16,
);
const QUERY_KEY_VALUE = 16 * (16 + 8 + 8);
const OUTPUT = 16 * 16;
const GATE_UP = 2 * 16 * 40;
const DOWN = 40 * 16;

/** All of the first two blocks, but for what is skipped. */
function outlineWithout(skipped: RegExp | undefined): InputOutline {
  const projections = MODEL.blocks.slice(0, 2).flatMap((block) => block.projections);
  const targets: ProjectionTargets = new Map(projections.filter(({ name }) => !skipped?.test(name)).map(({ name }) => [name, 0.5]));
  const groups = groupSamples(SAMPLES).map((group) => ({ ...group, sequenceLength: LENGTH }));
  const calibration = { tokens: { samples: SAMPLES, sequenceLength: LENGTH }, groups };
  return { model: MODEL, targets, computedBudget: undefined, calibration, measurement: undefined };
}

function pruning(propagation: Propagation): JobWork {
  const numbers = { compute: Compute.F32, hiddenStates: HiddenStates.F32 };
  return { ...measuringWith(numbers), use: 'calibrate', allocation: Allocation.TRIM, score: Score.WANDA, propagation };
}

describe('countFlops', () => {
  test.each([
    ['by the dense block', Propagation.DENSE_BLOCK, undefined, QUERY_KEY_VALUE + OUTPUT + GATE_UP],
    ['staged', Propagation.STAGED, undefined, 3 * QUERY_KEY_VALUE + 2 * OUTPUT + GATE_UP],
    ['with recalculated inputs', Propagation.RECALCULATED_INPUTS, undefined, 4 * QUERY_KEY_VALUE + 3 * OUTPUT + 2 * GATE_UP],
    ['without the feed-forward half', Propagation.DENSE_BLOCK, /mlp/, QUERY_KEY_VALUE],
    ['staged without the output projection', Propagation.STAGED, /o_proj/, 2 * (QUERY_KEY_VALUE + OUTPUT) + GATE_UP],
    ['of queries, keys and values only', Propagation.RECALCULATED_INPUTS, /mlp|o_proj/, 0],
  ])('counts the passes of statistics %s', (_, propagation, skipped, weights) => {
    expect(countFlops(outlineWithout(skipped), [pruning(propagation)])['collect']).toBe(2 * TOKENS * 2 * weights);
  });

  test('counts the passes of the dense model beside the pruned one', () => {
    const outline = outlineWithout(undefined);
    const own = countFlops(outline, [pruning(Propagation.STAGED)]);
    const dense = countFlops(outline, [{ ...pruning(Propagation.STAGED), denseTargets: true }]);
    expect(dense).toMatchObject({ collect: 2 * own['collect']!, propagate: 2 * own['propagate']! });
  });

  test('counts Gram matrices and what is solved with them', () => {
    const outline = outlineWithout(undefined);
    const flops = (change: Partial<JobWork>) => countFlops(outline, [{ ...pruning(Propagation.STAGED), ...change }]);
    expect(flops({})).not.toHaveProperty('repair');
    const fitted = flops({ repair: Repair.FIT, fitSteps: 5 });
    // Each pair of columns once; in both blocks four inputs, of which one is wide.
    expect(fitted['gram']).toBe(2 * TOKENS * (3 * 16 ** 2 + 40 ** 2));
    const products = 2 * ((QUERY_KEY_VALUE + OUTPUT + GATE_UP) * 16 + DOWN * 40);
    // Five steps and their start, and three errors.
    expect(fitted['repair']).toBe(2 * products * 9);
    expect(flops({ swaps: true })['repair']).toBe(2 * products * 3);
    const towardsDense = flops({ repair: Repair.FIT, fitSteps: 5, denseTargets: true });
    // A whole drift beside each, of the inputs and, twice, of the hidden states.
    expect(towardsDense['gram']).toBe(fitted['gram']! + 2 * TOKENS * 2 * (16 * 16 + 16 * 32 + 16 * 16 + 40 * 56));
    expect(towardsDense['repair']).toBeGreaterThan(fitted['repair']!);
    for (const change of [{ repair: Repair.ADMM, fitSteps: 5 }, { score: Score.SPARSEGPT }]) {
      expect(flops(change)['repair']).toBeGreaterThan(2 * products * 3);
    }
  });

  test('counts what is allocated, and every block whose output is read, whatever the stages', () => {
    const weights = QUERY_KEY_VALUE + OUTPUT + GATE_UP + DOWN;
    for (const propagation of [Propagation.DENSE_BLOCK, Propagation.STAGED]) {
      expect(countFlops(outlineWithout(undefined), [pruning(propagation)])).toMatchObject({
        allocate: 2 * SAMPLES * 2 * weights,
        propagate: 2 * TOKENS * weights,
      });
    }
  });
});
