/** Every way to prune, on models of awkward shapes: the same bytes on 1 node and on 3, and exactly as many zeros as its formula says. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Allocation, Repair, RepairOptions, RepairTargets, Score, SwapOptions, type GroupPattern } from '@secateur/proto/allocation';
import {
  AlphaMetric,
  BudgetGranularity,
  LayerBudget,
  LayerBudgetOptions,
  ProjectionSelection,
  Propagation,
  QualityInputs,
  TokenSource,
  type PruneSpec,
} from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { withTemporaryFolder } from '../support/paths.js';
import type { ModelConfig } from '../support/reference-model.js';
import { readTinyCheckpoint, writeTinyCheckpoint, writeTinyTokens } from '../support/tiny-checkpoint.js';

const SAMPLES = 19;
const LENGTH = 5;
const VOCABULARY = 61;
const SPARSITY = 0.5;

const common = {
  num_hidden_layers: 2,
  vocab_size: VOCABULARY,
  max_position_embeddings: 32,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
} as const;

const MODELS: readonly (readonly [string, ModelConfig])[] = [
  [
    'columns that fill no vector',
    { ...common, model_type: 'llama', hidden_size: 30, intermediate_size: 37, num_attention_heads: 3, num_key_value_heads: 1 },
  ],
  [
    'projections of one row and of one column',
    { ...common, model_type: 'qwen2', hidden_size: 20, intermediate_size: 1, num_attention_heads: 2, num_key_value_heads: 2 },
  ],
];

interface Shape {
  readonly rows: number;
  readonly columns: number;
  readonly target: number;
}

/** What equal rows drop, however it is dealt out to them. */
const equalRows = ({ rows, columns, target }: Shape): number => rows * Math.floor(Math.fround(columns * Math.fround(target)));
/** Of TRIM: rows are rounded down, each by less than one weight. */
const searchedRows = ({ rows, columns, target }: Shape): readonly [number, number] => [
  rows * columns * target - rows,
  rows * columns * target + 1,
];
const grouped = (columns: number, { dropped, group }: GroupPattern): number =>
  Math.floor(columns / group) * dropped + Math.floor(((columns % group) * dropped) / group);

interface Method {
  readonly name: string;
  readonly changes: Parameters<typeof pruneSpec>[2];
  /** How many weights a projection drops: a number, or what it is between. */
  readonly dropped: (shape: Shape) => number | readonly [number, number];
}

const repair = (method: Repair) => RepairOptions.fromPartial({ method });
const budget = (layerBudget: LayerBudget, options: Parameters<typeof LayerBudgetOptions.fromPartial>[0]): Partial<PruneSpec> => ({
  layerBudget,
  layerBudgetOptions: LayerBudgetOptions.fromPartial(options),
});
const UNIFORM = { allocation: Allocation.UNIFORM };
const TWO_OF_FOUR = { dropped: 2, group: 4 };

const METHODS: readonly Method[] = [
  { name: 'TRIM', changes: {}, dropped: searchedRows },
  { name: 'TRIM by magnitude', changes: { score: Score.MAGNITUDE }, dropped: searchedRows },
  { name: 'TRIM on all tokens', changes: { qualityInputs: QualityInputs.ALL, sketches: 3 }, dropped: searchedRows },
  { name: 'TRIM, staged', changes: { propagation: Propagation.STAGED }, dropped: searchedRows },
  { name: 'TRIM, inputs recalculated', changes: { propagation: Propagation.RECALCULATED_INPUTS }, dropped: searchedRows },
  { name: 'equal rows', changes: UNIFORM, dropped: equalRows },
  { name: 'the optimal split', changes: { allocation: Allocation.OPTIMAL }, dropped: equalRows },
  {
    name: 'the optimal split on all tokens',
    changes: { allocation: Allocation.OPTIMAL, qualityInputs: QualityInputs.ALL },
    dropped: equalRows,
  },
  {
    name: 'a pattern',
    changes: { ...UNIFORM, groupPattern: TWO_OF_FOUR },
    dropped: ({ rows, columns }) => rows * grouped(columns, TWO_OF_FOUR),
  },
  {
    name: 'OWL',
    changes: { ...UNIFORM, ...budget(LayerBudget.OWL, { owl: { lambda: 0.1, threshold: 3 } }) },
    dropped: equalRows,
  },
  {
    name: 'AlphaPruning',
    changes: {
      ...UNIFORM,
      // A matrix of one row has no spectrum.
      selection: ProjectionSelection.fromPartial({ skip: ['mlp'] }),
      ...budget(LayerBudget.ALPHA, { alpha: { metric: AlphaMetric.MID, epsilon: 0.2, granularity: BudgetGranularity.PROJECTION } }),
    },
    dropped: equalRows,
  },
  {
    name: 'the optimal budget',
    changes: { ...UNIFORM, ...budget(LayerBudget.OPTIMAL, { optimal: { spread: 0.2, samples: 5 } }) },
    dropped: equalRows,
  },
  { name: 'SparseGPT', changes: { ...UNIFORM, score: Score.SPARSEGPT, propagation: Propagation.STAGED }, dropped: equalRows },
  { name: "SparseGPT with TRIM's rows", changes: { score: Score.SPARSEGPT }, dropped: searchedRows },
  { name: 'a fit', changes: { ...UNIFORM, repair: repair(Repair.FIT) }, dropped: equalRows },
  { name: 'ADMM over rows', changes: { ...UNIFORM, repair: repair(Repair.ADMM) }, dropped: equalRows },
  { name: "ADMM with TRIM's rows", changes: { repair: repair(Repair.ADMM) }, dropped: searchedRows },
  {
    name: 'ADMM towards the dense model',
    changes: { ...UNIFORM, propagation: Propagation.STAGED, repair: { ...repair(Repair.ADMM), targets: RepairTargets.DENSE } },
    dropped: equalRows,
  },
  { name: 'swaps and a fit', changes: { swap: SwapOptions.fromPartial({}), repair: repair(Repair.FIT) }, dropped: searchedRows },
];

let single: Cluster;
let triple: Cluster;
beforeAll(async () => {
  single = await Cluster.start({ nodes: 1, threads: 2 });
  triple = await Cluster.start({ nodes: 3, threads: 1 });
});
afterAll(async () => {
  await single[Symbol.asyncDispose]();
  await triple[Symbol.asyncDispose]();
});

describe.each(MODELS)('%s', (model, config) => {
  test.each(METHODS)('$name', ({ name, changes, dropped }) =>
    withTemporaryFolder(async (folder) => {
      const directory = join(folder, 'model');
      await writeTinyCheckpoint(directory, config);
      const ids = join(folder, 'ids.safetensors');
      await writeTinyTokens(ids, SAMPLES, LENGTH, VOCABULARY);
      const pruneOn = async ({ client }: Cluster, output: string) => {
        const spec = pruneSpec('books-llama', output, {
          ...changes,
          model: directory,
          sparsity: SPARSITY,
          calibration: TokenSource.fromPartial({ path: ids }),
        });
        return prune(client, `${model}-${name}`.replaceAll(/[^a-z]/gi, '-').slice(0, 60), spec);
      };
      const outputs = [join(folder, 'one'), join(folder, 'three')] as const;
      const { projections } = await pruneOn(single, outputs[0]);
      await pruneOn(triple, outputs[1]);
      expect(await hashOutput(outputs[1])).toEqual(await hashOutput(outputs[0]));

      const tensors = await readTinyCheckpoint(outputs[0]);
      expect(projections).toHaveLength(changes?.selection === undefined ? 14 : 8);
      for (const { name: projection, rows, columns, target, record, repair: repaired } of projections) {
        const expected = dropped({ rows, columns, target });
        const [least, most] = typeof expected === 'number' ? [expected, expected] : expected;
        expect(record!.dropped).toBeGreaterThanOrEqual(least);
        expect(record!.dropped).toBeLessThanOrEqual(most);
        const zeros = tensors.get(`${projection}.weight`)!.filter((value) => value === 0).length;
        expect(zeros).toBe(record!.dropped);
        // SparseGPT drops other weights than the allocation, not always better ones.
        if (repaired !== undefined && changes?.score !== Score.SPARSEGPT) {
          expect(repaired.errorAfter).toBeLessThanOrEqual(repaired.errorBefore);
        }
      }
    }),
  );
});
