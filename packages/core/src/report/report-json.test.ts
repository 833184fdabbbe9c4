import { describe, expect, test } from '@jest/globals';
import { Allocation, AllocationRecord, LayerQuality, RowQuality, Score } from '@secateur/proto/allocation';
import {
  AlphaMetric,
  BudgetGranularity,
  LayerBudget,
  LayerBudgetOptions,
  Pattern,
  Preset,
  Propagation,
  QualityInputs,
  Sampling,
  Task,
  TokenSource,
} from '@secateur/proto/job';
import { Compute, HiddenStates } from '@secateur/proto/model';
import { EvaluateReport, PruneReport } from '@secateur/proto/pruning_service';
import { evaluateReportToJson, pruneReportToJson } from './report-json.js';

const ENGINE = {
  backend: 'cpu',
  reason: 'no driver',
  instructionSet: 'avx2',
  gemm: 'oneDNN 2.6.3',
  threads: 2,
  version: '0.1.0',
  cpus: '0-1',
  numaNode: 0,
  productSpeed: 1e11,
  bf16ProductSpeed: 0,
};

const REPORT = PruneReport.fromPartial({
  model: '/models/in',
  output: '/models/out',
  targetSparsity: 0.7,
  actualSparsity: 0.699,
  config: {
    preset: Preset.FAST,
    model: '/models/in',
    output: '/models/out',
    sparsity: 0.7,
    options: {
      score: Score.WANDA,
      allocation: Allocation.TRIM,
      layerQuality: LayerQuality.PSNR_DIM,
      rowQuality: RowQuality.COSIM,
      iterations: 10,
      learningRates: [0.01, 0.02],
      negativeLearningRates: [-0.01],
    },
    layerBudget: LayerBudget.UNIFORM,
    pattern: Pattern.UNSTRUCTURED,
    propagation: Propagation.RECALCULATED_INPUTS,
    compute: Compute.BF16,
    hiddenStates: HiddenStates.BF16,
    qualityInputs: QualityInputs.ALL,
    sketches: 2,
    selection: { skip: ['q_proj'] },
    calibration: {
      path: '/data/text.txt',
      morePaths: ['/data/more/*.parquet'],
      seed: 7,
      sampling: Sampling.CONCATENATED,
      textField: 'content',
    },
  },
  samples: 16,
  sequenceLength: 256,
  calibrationDigest: '0123456789abcdef',
  calibrationSha256: 'ab'.repeat(32),
  calibrationFiles: ['/data/more/a.parquet', '/data/text.txt'],
  calibrationDocuments: 5,
  projections: [
    {
      name: 'model.layers.0.self_attn.q_proj',
      rows: 4,
      columns: 8,
      target: 0.7,
      actual: 0.6875,
      record: {
        baselineQuality: 0.9,
        bestQuality: 0.95,
        learningRate: -0.02,
        bestStep: 0,
        varianceBefore: 0.1,
        varianceAfter: 0.2,
        dropped: 22,
      },
      seconds: 0.5,
    },
    {
      name: 'model.layers.0.self_attn.k_proj',
      rows: 4,
      columns: 8,
      target: 0.7,
      actual: 0.625,
      record: { baselineQuality: 0.9, bestQuality: 0.9, varianceBefore: 0.1, varianceAfter: 0.1, dropped: 20 },
      seconds: 0.25,
    },
  ],
  seconds: { collect: 1.5, total: 3 },
  nodes: [
    { address: '127.0.0.1:1', name: 'node-0', engine: ENGINE, lost: '', plannedResidentBytes: 3000, peakResidentBytes: 2900 },
    { address: '127.0.0.1:2', name: 'node-1', engine: ENGINE, lost: 'connection closed', plannedResidentBytes: 2000 },
  ],
  layerSeconds: [2.5],
  resumedLayers: 1,
});

describe('secateur.json', () => {
  test.each([
    [LayerBudget.OWL, { owl: { lambda: 0.08, threshold: 5 } }, 'owl', { lambda: 0.08, threshold: 5 }],
    [
      LayerBudget.ALPHA,
      { alpha: { metric: AlphaMetric.MID, epsilon: 0.1, granularity: BudgetGranularity.PROJECTION } },
      'alpha',
      { metric: 'mid', epsilon: 0.1, per: 'projection' },
    ],
    [LayerBudget.OPTIMAL, { optimal: { spread: 0.1, samples: 16 } }, 'optimal', { spread: 0.1, samples: 16 }],
    [LayerBudget.GIVEN, { file: '/data/ratios.npy' }, 'given', { file: '/data/ratios.npy' }],
  ])('names layer budget %d and its settings', (layerBudget, options, name, settings) => {
    const config = { ...REPORT.config!, layerBudget, layerBudgetOptions: LayerBudgetOptions.fromPartial(options) };
    expect(pruneReportToJson({ ...REPORT, config }).config).toMatchObject({ layerBudget: name, layerBudgetOptions: settings });
  });

  test('has null for a quality that is infinite', () => {
    const [first] = REPORT.projections;
    const record = AllocationRecord.fromPartial({ baselineQuality: 80.5, bestQuality: Infinity });
    const { projections } = pruneReportToJson({ ...REPORT, projections: [{ ...first!, record }] });
    expect(projections).toMatchObject([{ baselineQuality: 80.5, bestQuality: null }]);
  });

  test('holds all of a report under the contracted names', () => {
    expect(JSON.parse(JSON.stringify(pruneReportToJson(REPORT)))).toEqual({
      model: '/models/in',
      output: '/models/out',
      sparsity: { target: 0.7, actual: 0.699 },
      config: {
        score: 'wanda',
        allocation: 'trim',
        layerQuality: 'psnr_dim',
        rowQuality: 'cosim',
        iterations: 10,
        learningRates: [0.01, 0.02],
        negativeLearningRates: [-0.01],
        layerBudget: 'uniform',
        pattern: 'unstructured',
        preset: 'fast',
        propagation: 'recalculated_inputs',
        compute: 'bf16',
        hiddenStates: 'bf16',
        qualityInputs: 'all',
        sketches: 2,
        only: [],
        skip: ['q_proj'],
        skipLayers: [],
        targets: [],
        calibration: ['/data/text.txt', '/data/more/*.parquet'],
        seed: 7,
        textField: 'content',
      },
      calibration: {
        samples: 16,
        seqLen: 256,
        tokens: 4096,
        digest: '0123456789abcdef',
        sha256: 'ab'.repeat(32),
        files: ['/data/more/a.parquet', '/data/text.txt'],
        sampling: 'concatenated',
        documents: 5,
      },
      skipped: [],
      projections: [
        {
          name: 'model.layers.0.self_attn.q_proj',
          rows: 4,
          columns: 8,
          target: 0.7,
          actual: 0.6875,
          baselineQuality: 0.9,
          bestQuality: 0.95,
          learningRate: -0.02,
          bestStep: 0,
          varianceBefore: 0.1,
          varianceAfter: 0.2,
          seconds: 0.5,
        },
        {
          name: 'model.layers.0.self_attn.k_proj',
          rows: 4,
          columns: 8,
          target: 0.7,
          actual: 0.625,
          baselineQuality: 0.9,
          bestQuality: 0.9,
          learningRate: null,
          bestStep: null,
          varianceBefore: 0.1,
          varianceAfter: 0.1,
          seconds: 0.25,
        },
      ],
      timings: { seconds: { collect: 1.5, total: 3 }, layerSeconds: [2.5], resumedLayers: 1 },
      nodes: [
        { address: '127.0.0.1:1', name: 'node-0', lost: null, memory: { plannedBytes: 3000, peakBytes: 2900 } },
        { address: '127.0.0.1:2', name: 'node-1', lost: 'connection closed', memory: { plannedBytes: 2000, peakBytes: null } },
      ],
      engine: ENGINE,
    });
  });

  test('is the same after the wire', () => {
    const received = PruneReport.decode(PruneReport.encode(REPORT).finish());
    expect(pruneReportToJson(received)).toEqual(pruneReportToJson(REPORT));
  });

  test('names one path as it is, and no sampling of ids', () => {
    const calibration = TokenSource.fromPartial({ path: '/data/ids.safetensors', sampling: Sampling.DOCUMENTS });
    const json = pruneReportToJson({ ...REPORT, config: { ...REPORT.config!, calibration }, calibrationDocuments: 0 });
    expect(json.config['calibration']).toBe('/data/ids.safetensors');
    expect(json.calibration).toMatchObject({ sampling: null, documents: null });
  });

  test('lists no negative rates that were forbidden', () => {
    const { config } = REPORT;
    const options = { ...config!.options!, forbidNegativeLearningRates: true };
    expect(pruneReportToJson({ ...REPORT, config: { ...config!, options } }).config).toMatchObject({ negativeLearningRates: [] });
  });
});

test('an evaluation', () => {
  const report = EvaluateReport.fromPartial({
    model: 'm',
    perplexity: 12.5,
    windows: 3,
    sequenceLength: 256,
    stride: 128,
    losses: [1, 2, 3],
    seconds: 4,
  });
  const perplexity = { task: 'perplexity', perplexity: 12.5, windows: 3, seqLen: 256, stride: 128 };
  expect(evaluateReportToJson(report)).toEqual({ model: 'm', ...perplexity, seconds: 4 });
  const accuracy = { value: 0.5, standardError: 0.25 };
  const tasks = [
    { task: Task.BOOLQ, questions: 5, accuracy, normalizedAccuracy: undefined },
    { task: Task.PIQA, questions: 6, accuracy, normalizedAccuracy: { value: 0.75, standardError: 0.125 } },
  ];
  const inJson = [
    { task: 'boolq', n: 5, acc: 0.5, stderr: 0.25, accNorm: null, accNormStderr: null },
    { task: 'piqa', n: 6, acc: 0.5, stderr: 0.25, accNorm: 0.75, accNormStderr: 0.125 },
  ];
  expect(evaluateReportToJson({ ...report, tasks })).toEqual({ model: 'm', ...perplexity, tasks: inJson, seconds: 4 });
  expect(evaluateReportToJson({ ...report, windows: 0, tasks })).toEqual({ model: 'm', tasks: inJson, seconds: 4 });
});

test('a prune job that measured the perplexity', () => {
  const { config } = REPORT;
  const evaluation = TokenSource.fromPartial({ path: '/data/eval.txt' });
  const report = { ...REPORT, config: { ...config!, evaluation }, perplexity: { dense: 10, pruned: 12 } };
  expect(pruneReportToJson(report)).toMatchObject({ perplexity: { dense: 10, pruned: 12 }, config: { evaluation: '/data/eval.txt' } });
});
