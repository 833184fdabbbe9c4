import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  Allocation,
  AllocationOptions,
  LayerQuality,
  Repair,
  RepairOptions,
  RepairTargets,
  RowQuality,
  Score,
} from '@secateur/proto/allocation';
import {
  AlphaMetric,
  BudgetGranularity,
  JobSpec,
  LayerBudget,
  LayerBudgetOptions,
  Pattern,
  ProjectionSelection,
  Propagation,
  PruneSpec,
  QualityInputs,
  Sampling,
  Task,
  TokenSource,
  type EvaluateSpec,
} from '@secateur/proto/job';
import { SecateurError } from '../errors.js';
import { parseArchitecture } from '../model/parse-architecture.js';
import { changesKeptWeights, needsGramMatrices, pathsOf, resolveJobSpec, resolveSequenceLength, validateJobId } from './resolve-spec.js';

function prune(change: Partial<PruneSpec> = {}): JobSpec {
  const value = PruneSpec.fromPartial({ model: 'in', output: 'out', sparsity: 0.7, calibration: { path: 'text.txt' } });
  return JobSpec.fromPartial({ kind: { $case: 'prune', value: { ...value, ...change } } });
}

function withOptions(options: Parameters<typeof AllocationOptions.fromPartial>[0]): JobSpec {
  return prune({ options: AllocationOptions.fromPartial(options) });
}

function grouped(dropped: number, group: number, sparsity: number, allocation?: Allocation): JobSpec {
  const options = AllocationOptions.fromPartial({ groupPattern: { dropped, group }, ...(allocation === undefined ? {} : { allocation }) });
  return prune({ sparsity, pattern: Pattern.GROUPED, options });
}

const inGroups: Partial<PruneSpec> = {
  sparsity: 0.5,
  pattern: Pattern.GROUPED,
  options: AllocationOptions.fromPartial({ groupPattern: { dropped: 2, group: 4 } }),
};

function withRepair(repair: Parameters<typeof RepairOptions.fromPartial>[0], change: Partial<PruneSpec> = {}): JobSpec {
  return prune({ ...change, repair: RepairOptions.fromPartial(repair) });
}

const staged: Partial<PruneSpec> = { propagation: Propagation.STAGED };

function withTarget(change: Partial<PruneSpec>): JobSpec {
  return prune({ ...change, selection: ProjectionSelection.fromPartial({ targets: [{ pattern: 'mlp', sparsity: 0.6 }] }) });
}

function withBudget(
  budget: LayerBudget,
  options?: Parameters<typeof LayerBudgetOptions.fromPartial>[0],
  change: Partial<PruneSpec> = {},
): JobSpec {
  const layerBudgetOptions = options && LayerBudgetOptions.fromPartial(options);
  return prune({ ...change, layerBudget: budget, ...(layerBudgetOptions && { layerBudgetOptions }) });
}

function evaluate(change: Partial<EvaluateSpec> = {}): JobSpec {
  return JobSpec.fromPartial({
    kind: { $case: 'evaluate', value: { model: 'in', data: TokenSource.fromPartial({ path: 'a.txt' }), ...change } },
  });
}

function resolvedPrune(spec: JobSpec): PruneSpec {
  const { kind } = resolveJobSpec(spec);
  if (kind?.$case !== 'prune') throw new Error('The kind has changed.');
  return kind.value;
}

function violatedFields(act: () => unknown): string[] {
  try {
    act();
  } catch (error) {
    if (!(error instanceof SecateurError)) throw error;
    expect(error.reason).toBe('INVALID_REQUEST');
    for (const { field, description } of error.violations) expect(error.message).toContain(`${field} ${description}`);
    return error.violations.map(({ field }) => field);
  }
  return [];
}

describe('defaults', () => {
  test('of layer budgets are those of the published code, but for what depends on the model', () => {
    expect(resolvedPrune(prune()).layerBudgetOptions).toBeUndefined();
    expect(resolvedPrune(withBudget(LayerBudget.OWL)).layerBudgetOptions).toEqual(
      LayerBudgetOptions.fromPartial({ owl: { lambda: 0.05, threshold: 7 } }),
    );
    expect(resolvedPrune(withBudget(LayerBudget.ALPHA)).layerBudgetOptions).toEqual(
      LayerBudgetOptions.fromPartial({ alpha: { metric: AlphaMetric.PEAK, epsilon: 0, granularity: BudgetGranularity.BLOCK } }),
    );
    expect(resolvedPrune(withBudget(LayerBudget.OPTIMAL)).layerBudgetOptions).toEqual(
      LayerBudgetOptions.fromPartial({ optimal: { spread: 0.15, samples: 8 } }),
    );
    // A file says by itself that ratios are given.
    expect(resolvedPrune(withBudget(LayerBudget.UNSPECIFIED, { file: 'a.npy' })).layerBudget).toBe(LayerBudget.GIVEN);
  });

  test('of a prune job are those of the published code', () => {
    const resolved = resolvedPrune(prune());
    expect(resolved).toMatchObject({
      layerBudget: LayerBudget.UNIFORM,
      pattern: Pattern.UNSTRUCTURED,
      qualityInputs: QualityInputs.LAST,
      sketches: 0,
      propagation: Propagation.DENSE_BLOCK,
      options: {
        score: Score.WANDA,
        allocation: Allocation.TRIM,
        iterations: 10,
        learningRates: [0.01, 0.02, 0.04, 0.08, 0.12, 0.16],
        negativeLearningRates: [-0.01, -0.02, -0.04],
        forbidNegativeLearningRates: false,
        layerQuality: LayerQuality.COSIM_FLAT,
        rowQuality: RowQuality.COSIM,
      },
    });
  });

  test('of the allocation follow from the score, the pattern and given row sparsities', () => {
    const allocationOf = (spec: JobSpec) => resolvedPrune(spec).options?.allocation;
    expect(allocationOf(withOptions({ score: Score.MAGNITUDE }))).toBe(Allocation.TRIM);
    expect(allocationOf(withOptions({ score: Score.WANDA_VARIANT }))).toBe(Allocation.UNIFORM);
    expect(allocationOf(prune({ rowSparsities: 'rows.safetensors' }))).toBe(Allocation.GIVEN);
    expect(allocationOf(grouped(2, 4, 0.5))).toBe(Allocation.UNIFORM);
  });

  test('judge rows on four sketches of each sample where all tokens are asked for, or on as many as are given', () => {
    expect(resolvedPrune(prune({ qualityInputs: QualityInputs.ALL }))).toMatchObject({ qualityInputs: QualityInputs.ALL, sketches: 4 });
    expect(resolvedPrune(prune({ qualityInputs: QualityInputs.ALL, sketches: 8 })).sketches).toBe(8);
  });

  test('leave an optimal split with either score of rows as it is', () => {
    for (const score of [Score.WANDA, Score.MAGNITUDE]) {
      const options = { allocation: Allocation.OPTIMAL, score };
      expect(resolvedPrune(withOptions(options)).options).toMatchObject(options);
    }
  });

  test('leave samples and length to the data and the model', () => {
    expect(resolvedPrune(prune()).calibration).toEqual({
      path: 'text.txt',
      morePaths: [],
      samples: 0,
      sequenceLength: 0,
      seed: 0,
      sampling: Sampling.DOCUMENTS,
      textField: 'text',
    });
  });

  test('take a source without a first path, and leave the sampling of what is measured alone', () => {
    const data = TokenSource.fromPartial({ morePaths: ['a.txt', 'b*.txt'] });
    const { kind } = resolveJobSpec(evaluate({ data }));
    expect(kind?.value).toMatchObject({ data: { sampling: Sampling.UNSPECIFIED, textField: 'text' } });
    expect(pathsOf(data)).toEqual(['a.txt', 'b*.txt']);
  });

  test('do not touch what is given', () => {
    const options = {
      score: Score.MAGNITUDE,
      allocation: Allocation.TRIM,
      iterations: 3,
      learningRates: [0.5, 0.25],
      negativeLearningRates: [-1],
      forbidNegativeLearningRates: true,
      layerQuality: LayerQuality.PSNR_SAMPLE,
      rowQuality: RowQuality.MSE,
    };
    const spec = JobSpec.fromPartial({ ...withOptions(options), recordTrace: true, maximumNodes: 3 });
    expect(resolvedPrune(spec).options).toEqual(options);
    expect(resolveJobSpec(spec)).toMatchObject({ recordTrace: true, maximumNodes: 3 });
  });

  test('are filled in once: a resolved spec resolves to itself', () => {
    for (const spec of [prune(), withOptions({ iterations: 7 }), evaluate()]) {
      const once = resolveJobSpec(spec);
      expect(resolveJobSpec(once)).toEqual(once);
    }
  });
});

describe('violations', () => {
  test.each<[string, JobSpec, string]>([
    ['no kind', JobSpec.fromPartial({}), 'kind'],
    ['no model', prune({ model: '' }), 'prune.model'],
    ['a pattern that drops all', grouped(4, 4, 0.5), 'prune.pattern'],
    ['a pattern that drops nothing', grouped(0, 4, 0.5), 'prune.pattern'],
    ['another sparsity than the pattern has', grouped(2, 4, 0.6), 'prune.sparsity'],
    ['a pattern without its numbers', prune({ pattern: Pattern.GROUPED }), 'prune.options.group_pattern'],
    ['numbers without a pattern', withOptions({ groupPattern: { dropped: 2, group: 4 } }), 'prune.options.group_pattern'],
    [
      'a search with the variant of Wanda',
      withOptions({ score: Score.WANDA_VARIANT, allocation: Allocation.TRIM }),
      'prune.options.allocation',
    ],
    [
      'a target beside a pattern',
      withTarget({
        sparsity: 0.5,
        pattern: Pattern.GROUPED,
        options: AllocationOptions.fromPartial({ groupPattern: { dropped: 2, group: 4 } }),
      }),
      'prune.selection.targets',
    ],
    ['a target beside given rows', withTarget({ rowSparsities: 'rows.safetensors' }), 'prune.selection.targets'],
    ['given rows without a file', withOptions({ allocation: Allocation.GIVEN }), 'prune.row_sparsities'],
    [
      'a file of rows with a search',
      prune({ rowSparsities: 'rows.safetensors', options: AllocationOptions.fromPartial({ allocation: Allocation.TRIM }) }),
      'prune.row_sparsities',
    ],
    ['an optimal split of a pattern', grouped(2, 4, 0.5, Allocation.OPTIMAL), 'prune.options.allocation'],
    [
      'an optimal split with the variant of Wanda',
      withOptions({ allocation: Allocation.OPTIMAL, score: Score.WANDA_VARIANT }),
      'prune.options.allocation',
    ],
    ['sketches of the last tokens', prune({ sketches: 2 }), 'prune.sketches'],
    ['too many sketches', prune({ qualityInputs: QualityInputs.ALL, sketches: 9 }), 'prune.sketches'],
    ['unknown quality inputs', prune({ qualityInputs: QualityInputs.UNRECOGNIZED }), 'prune.quality_inputs'],
    ['no output', prune({ output: '' }), 'prune.output'],
    ['no calibration', prune({ calibration: undefined }), 'prune.calibration.path'],
    ['too many samples', prune({ calibration: TokenSource.fromPartial({ path: 'a', samples: 65_537 }) }), 'prune.calibration.samples'],
    [
      'too long',
      prune({ calibration: TokenSource.fromPartial({ path: 'a', sequenceLength: 131_073 }) }),
      'prune.calibration.sequence_length',
    ],
    ['one token', prune({ calibration: TokenSource.fromPartial({ path: 'a', sequenceLength: 1 }) }), 'prune.calibration.sequence_length'],
    [
      'unknown sampling',
      prune({ calibration: TokenSource.fromPartial({ path: 'a', sampling: Sampling.UNRECOGNIZED }) }),
      'prune.calibration.sampling',
    ],
    ['unknown budget', prune({ layerBudget: LayerBudget.UNRECOGNIZED }), 'prune.layer_budget'],
    ['a λ that leaves no room', withBudget(LayerBudget.OWL, { owl: { lambda: 0.5 } }), 'prune.layer_budget_options.owl.lambda'],
    ['a λ that is no number', withBudget(LayerBudget.OWL, { owl: { lambda: NaN } }), 'prune.layer_budget_options.owl.lambda'],
    ['a negative threshold', withBudget(LayerBudget.OWL, { owl: { threshold: -1 } }), 'prune.layer_budget_options.owl.threshold'],
    ['an ε of 1', withBudget(LayerBudget.ALPHA, { alpha: { epsilon: 1 } }), 'prune.layer_budget_options.alpha.epsilon'],
    ['an ε that is no number', withBudget(LayerBudget.ALPHA, { alpha: { epsilon: NaN } }), 'prune.layer_budget_options.alpha.epsilon'],
    [
      'an unknown metric',
      withBudget(LayerBudget.ALPHA, { alpha: { metric: AlphaMetric.UNRECOGNIZED } }),
      'prune.layer_budget_options.alpha.metric',
    ],
    [
      'an unknown granularity',
      withBudget(LayerBudget.ALPHA, { alpha: { granularity: BudgetGranularity.UNRECOGNIZED } }),
      'prune.layer_budget_options.alpha.granularity',
    ],
    ['a spread of 1', withBudget(LayerBudget.OPTIMAL, { optimal: { spread: 1 } }), 'prune.layer_budget_options.optimal.spread'],
    ['a negative spread', withBudget(LayerBudget.OPTIMAL, { optimal: { spread: -0.1 } }), 'prune.layer_budget_options.optimal.spread'],
    ['a spread of another budget', withBudget(LayerBudget.OWL, { optimal: {} }), 'prune.layer_budget_options.optimal'],
    ['given ratios without a file', withBudget(LayerBudget.GIVEN), 'prune.layer_budget_options.file'],
    ['a file beside owl', withBudget(LayerBudget.OWL, { file: 'a.json' }), 'prune.layer_budget_options.file'],
    ['settings of another budget', withBudget(LayerBudget.OWL, { alpha: {} }), 'prune.layer_budget_options.alpha'],
    ['settings of none', withBudget(LayerBudget.UNIFORM, { owl: {} }), 'prune.layer_budget_options.owl'],
    [
      'a budget beside a pattern',
      withBudget(LayerBudget.OWL, undefined, {
        sparsity: 0.5,
        pattern: Pattern.GROUPED,
        options: AllocationOptions.fromPartial({ groupPattern: { dropped: 2, group: 4 } }),
      }),
      'prune.layer_budget',
    ],
    ['a budget beside row sparsities', withBudget(LayerBudget.GIVEN, { file: 'a' }, { rowSparsities: 'b' }), 'prune.layer_budget'],
    [
      'a budget beside targets',
      withBudget(LayerBudget.ALPHA, undefined, {
        selection: ProjectionSelection.fromPartial({ targets: [{ pattern: 'mlp', sparsity: 0.6 }] }),
      }),
      'prune.layer_budget',
    ],
    ['unknown propagation', prune({ propagation: Propagation.UNRECOGNIZED }), 'prune.propagation'],
    ['unknown pattern', prune({ pattern: Pattern.UNRECOGNIZED }), 'prune.pattern'],
    ['unknown score', withOptions({ score: Score.UNRECOGNIZED }), 'prune.options.score'],
    ['unknown allocation', withOptions({ allocation: Allocation.UNRECOGNIZED }), 'prune.options.allocation'],
    ['unknown layer quality', withOptions({ layerQuality: LayerQuality.UNRECOGNIZED }), 'prune.options.layer_quality'],
    ['unknown row quality', withOptions({ rowQuality: RowQuality.UNRECOGNIZED }), 'prune.options.row_quality'],
    [
      'a layer quality without a search',
      withOptions({ allocation: Allocation.UNIFORM, layerQuality: LayerQuality.MSE }),
      'prune.options.layer_quality',
    ],
    [
      'a row quality beside given rows',
      prune({ rowSparsities: 'rows.safetensors', options: AllocationOptions.fromPartial({ rowQuality: RowQuality.PSNR }) }),
      'prune.options.row_quality',
    ],
    ['too many iterations', withOptions({ iterations: 1001 }), 'prune.options.iterations'],
    ['a rate of 0', withOptions({ learningRates: [0.01, 0] }), 'prune.options.learning_rates'],
    ['a rate that is no number', withOptions({ learningRates: [NaN] }), 'prune.options.learning_rates'],
    ['an infinite rate', withOptions({ learningRates: [Infinity] }), 'prune.options.learning_rates'],
    ['a negative rate among the others', withOptions({ learningRates: [-0.01] }), 'prune.options.learning_rates'],
    ['a positive rate among the negative', withOptions({ negativeLearningRates: [0.01] }), 'prune.options.negative_learning_rates'],
    ['no data', evaluate({ data: undefined }), 'evaluate.data.path'],
    ['no model to measure', evaluate({ model: '' }), 'evaluate.model'],
    ['an unknown task', evaluate({ tasks: [{ task: Task.UNSPECIFIED, path: 'a', limit: 0 }] }), 'evaluate.tasks[0].task'],
    ['a task without questions', evaluate({ tasks: [{ task: Task.RTE, path: '', limit: 0 }] }), 'evaluate.tasks[0].path'],
    [
      'a task twice',
      evaluate({ tasks: [Task.RTE, Task.PIQA, Task.RTE].map((task) => ({ task, path: 'a', limit: 0 })) }),
      'evaluate.tasks[2].task',
    ],
    [
      'a stride beyond the window',
      evaluate({ stride: 9, data: TokenSource.fromPartial({ path: 'a', sequenceLength: 8 }) }),
      'evaluate.stride',
    ],
    [
      'a stride without windows',
      evaluate({ stride: 9, data: undefined, tasks: [{ task: Task.RTE, path: 'a', limit: 0 }] }),
      'evaluate.stride',
    ],
    ['a repair that is not known', withRepair({ method: 9 as Repair }), 'prune.repair.method'],
    ['a repair with too much damping', withRepair({ method: Repair.FIT, damping: 11 }), 'prune.repair.damping'],
    ['a repair with negative damping', withRepair({ method: Repair.FIT, damping: -1 }), 'prune.repair.damping'],
    ['a repair that takes for ever', withRepair({ method: Repair.FIT, iterations: 1001 }), 'prune.repair.iterations'],
    ['dense targets of nothing that is fitted', withRepair({ targets: RepairTargets.DENSE }, staged), 'prune.repair.targets'],
    ['dense targets without staged inputs', withRepair({ method: Repair.FIT, targets: RepairTargets.DENSE }), 'prune.repair.targets'],
    ['targets that are not known', withRepair({ method: Repair.FIT, targets: 9 as RepairTargets }), 'prune.repair.targets'],
    [
      'a repair of what SparseGPT repairs',
      withRepair({ method: Repair.FIT }, { options: AllocationOptions.fromPartial({ score: Score.SPARSEGPT }) }),
      'prune.repair.method',
    ],
    ['swaps that are more than there are weights', prune({ swap: { most: 1.5 } }), 'prune.swap.most'],
    ['negative swaps', prune({ swap: { most: -0.1 } }), 'prune.swap.most'],
    ['swaps of a mask that ADMM chooses', withRepair({ method: Repair.ADMM }, { swap: { most: 0 } }), 'prune.swap'],
    [
      'swaps of a mask that SparseGPT chooses',
      prune({ swap: { most: 0 }, options: AllocationOptions.fromPartial({ score: Score.SPARSEGPT }) }),
      'prune.swap',
    ],
    ['swaps that would break a pattern', prune({ swap: { most: 0 }, ...inGroups }), 'prune.swap'],
    [
      'swaps without a sample to hold out',
      prune({ swap: { most: 0 }, calibration: TokenSource.fromPartial({ path: 'ids.safetensors', samples: 1 }) }),
      'prune.calibration.samples',
    ],
    ['a mask of groups that ADMM would choose', withRepair({ method: Repair.ADMM }, inGroups), 'prune.repair.method'],
    ['an unnamed evaluation', prune({ evaluation: TokenSource.fromPartial({}) }), 'prune.evaluation.path'],
  ])('%s', (_, spec, field) => {
    expect(violatedFields(() => resolveJobSpec(spec))).toEqual([field]);
  });

  test.each([0, 1, -0.1, 1.1, NaN, Infinity])('a sparsity of %p', (sparsity) => {
    expect(violatedFields(() => resolveJobSpec(prune({ sparsity })))).toEqual(['prune.sparsity']);
  });

  test('are told all at once', () => {
    const spec = prune({ model: '', output: '', sparsity: NaN, calibration: TokenSource.fromPartial({ path: '', samples: 1e6 }) });
    expect(violatedFields(() => resolveJobSpec(spec))).toEqual([
      'prune.model',
      'prune.output',
      'prune.sparsity',
      'prune.calibration.path',
      'prune.calibration.samples',
    ]);
  });

  test('any sparsity between 0 and 1 is taken, any other refused', () => {
    fc.assert(
      fc.property(fc.double(), (sparsity) => {
        const accepted = violatedFields(() => resolveJobSpec(prune({ sparsity }))).length === 0;
        expect(accepted).toBe(sparsity > 0 && sparsity < 1);
      }),
    );
  });
});

describe('repair', () => {
  test('is none unless asked for, and has defaults', () => {
    const spec = resolvedPrune(prune());
    expect(spec.repair).toEqual({ method: Repair.NONE, damping: 0.01, iterations: 20, targets: RepairTargets.OWN });
    expect(needsGramMatrices(spec)).toBe(false);
  });

  test('needs Gram matrices, and so does SparseGPT', () => {
    expect(needsGramMatrices(resolvedPrune(withRepair({ method: Repair.FIT })))).toBe(true);
    expect(needsGramMatrices(resolvedPrune(withOptions({ score: Score.SPARSEGPT })))).toBe(true);
  });

  test('may follow swaps, which need Gram matrices too', () => {
    const spec = resolvedPrune(withRepair({ method: Repair.FIT }, { swap: { most: 0.1 } }));
    expect(spec.swap).toEqual({ most: 0.1 });
    const masks = resolvedPrune(prune({ swap: { most: 0 } }));
    expect(masks.swap).toEqual({ most: 0.25 });
    expect(needsGramMatrices(masks)).toBe(true);
    expect(changesKeptWeights(masks)).toBe(false);
    expect(resolvedPrune(prune()).swap).toBeUndefined();
  });

  test('of a mask of groups can be a fit', () => {
    expect(resolvedPrune(withRepair({ method: Repair.FIT }, inGroups)).repair?.method).toBe(Repair.FIT);
  });
});

describe('sequence length', () => {
  const architecture = (maximumPositions: number): ReturnType<typeof parseArchitecture> =>
    parseArchitecture({
      model_type: 'llama',
      hidden_size: 8,
      intermediate_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 1,
      vocab_size: 8,
      max_position_embeddings: maximumPositions,
    });

  test.each([
    [0, 512, 512],
    [0, 2048, 2048],
    [0, 32_768, 2048],
    [256, 512, 256],
    [4096, 32_768, 4096],
    [512, 512, 512],
  ])('%d of a model that takes %d is %d', (requested, maximumPositions, expected) => {
    expect(resolveSequenceLength(requested, architecture(maximumPositions))).toBe(expected);
  });

  test('beyond what the model takes is refused with both numbers', () => {
    expect(() => resolveSequenceLength(513, architecture(512))).toThrow(/513.*512/);
  });
});

describe('job ids', () => {
  test.each(['a', 'nightly-70_b', 'x'.repeat(63), '-'])('%s', (id) => {
    expect(() => validateJobId(id)).not.toThrow();
  });

  test.each(['', 'x'.repeat(64), '../etc', 'a b', 'é', 'a\n', 'a/b'])('%j is refused', (id) => {
    expect(violatedFields(() => validateJobId(id))).toEqual(['job_id']);
  });
});
