import { describe, expect, test } from '@jest/globals';
import { compareRuns, requireRunReport } from './compare-runs.js';
import type { PruneReportJson } from './report-json.js';

const projection = (name: string, actual: number, quality: number): PruneReportJson['projections'][number] => ({
  name,
  rows: 2,
  columns: name.endsWith('q') ? 4 : 12,
  target: 0.7,
  actual,
  baselineQuality: 0.5,
  bestQuality: quality,
  learningRate: null,
  bestStep: null,
  varianceBefore: 0,
  varianceAfter: 0,
  seconds: 0.5,
});

const RUN: PruneReportJson = {
  model: '/models/in',
  output: '/out/a',
  sparsity: { target: 0.7, actual: 0.6875 },
  config: { score: 'wanda', allocation: 'trim', learningRates: [0.01] },
  calibration: {
    samples: 8,
    seqLen: 16,
    tokens: 128,
    digest: '0123',
    sha256: 'ab',
    files: ['/a.txt'],
    sampling: 'documents',
    documents: 1,
  },
  projections: [
    projection('0.q', 0.5, 0.8),
    projection('0.down', 0.75, 0.6),
    projection('1.q', 0.75, 0.9),
    projection('1.down', 0.75, 0.7),
  ],
  skipped: [],
  timings: { seconds: { collect: 1, total: 3 }, layerSeconds: [1, 2], resumedLayers: 0 },
  nodes: [],
  engine: {},
  perplexity: { dense: 20, pruned: 30 },
};

const OTHER: PruneReportJson = {
  ...RUN,
  output: '/out/b',
  sparsity: { target: 0.8, actual: 0.8 },
  config: { score: 'wanda', allocation: 'uniform', learningRates: [0.01], seed: 3 },
  projections: RUN.projections.slice(0, 2),
  timings: { seconds: { total: 2, evaluate: 1 }, layerSeconds: [2], resumedLayers: 0 },
};

describe('compareRuns', () => {
  const { perplexity: _measured, ...unmeasured } = OTHER;
  const comparison = compareRuns(RUN, unmeasured);

  test('finds a layer with an infinite quality infinitely good', () => {
    const loud = { ...RUN, projections: RUN.projections.map((each, index) => (index === 0 ? { ...each, bestQuality: null } : each)) };
    const { layers } = compareRuns(requireRunReport(JSON.parse(JSON.stringify(loud)), 'secateur.json'), OTHER);
    expect(layers.map(({ a }) => a?.quality)).toEqual([Infinity, 0.8]);
  });

  test('tells only options that differ', () => {
    expect(comparison.options).toEqual([
      { name: 'sparsity', a: 0.7, b: 0.8 },
      { name: 'allocation', a: 'trim', b: 'uniform' },
      { name: 'seed', a: null, b: 3 },
    ]);
    expect(compareRuns(RUN, RUN).options).toEqual([]);
  });

  test('has null for what a run does not have', () => {
    expect(comparison.perplexity).toEqual({ a: { dense: 20, pruned: 30 }, b: null });
    expect(comparison.layers[1]?.b).toBeNull();
    expect(comparison.seconds).toEqual({ collect: { a: 1, b: null }, total: { a: 3, b: 2 }, evaluate: { a: null, b: 1 } });
  });

  test('has null for a layer that was left out', () => {
    const { layers } = compareRuns(RUN, { ...RUN, projections: RUN.projections.slice(2) });
    expect(layers[0]?.b).toBeNull();
    expect(layers[1]?.b).toEqual(layers[1]?.a);
  });

  test('sums a layer up by the weights of its projections', () => {
    const layer = { sparsity: (8 * 0.5 + 24 * 0.75) / 32, uniformQuality: 0.5, quality: 0.7, seconds: 1 };
    expect(comparison.layers[0]?.a?.quality).toBeCloseTo(layer.quality, 12);
    expect(comparison.layers[0]?.a).toMatchObject({ ...layer, quality: expect.any(Number) as unknown });
  });
});

describe('requireRunReport', () => {
  test('takes what prune writes', () => {
    expect(requireRunReport(JSON.parse(JSON.stringify(RUN)), 'a.json')).toEqual(RUN);
  });

  test.each<[unknown, string]>([
    [null, 'output'],
    [[], 'output'],
    [{ ...RUN, sparsity: { target: 0.7 } }, 'sparsity'],
    [{ ...RUN, config: undefined }, 'config'],
    [{ ...RUN, calibration: 1 }, 'calibration'],
    [{ ...RUN, projections: [{ ...RUN.projections[0], rows: '2' }] }, 'projections'],
    [{ ...RUN, timings: { seconds: { total: 'long' }, layerSeconds: [] } }, 'timings'],
    [{ ...RUN, perplexity: { dense: 1 } }, 'perplexity'],
  ])('refuses %j by file and field', (value, field) => {
    expect(() => requireRunReport(value, 'a.json')).toThrow(new RegExp(`^a.json: the field ${field} is missing or wrong`));
  });
});
