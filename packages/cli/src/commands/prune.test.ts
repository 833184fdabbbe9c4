import { resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { QualityInputs } from '@secateur/proto/job';
import { createProgram } from '../program.js';
import { dataFiles, jobIdOf, localPathChecks, toPruneSpec, type PruneOptions } from './prune.js';

const REQUIRED = ['--model', 'models/a', '--out', 'out', '--sparsity', '0.7', '--calibration', 'text.txt'];

/** Options as the command line gives them, without running the command. */
function parse(...extra: string[]): PruneOptions {
  const program = createProgram('');
  const command = program.commands.find((candidate) => candidate.name() === 'prune');
  if (command === undefined) throw new Error('There is no prune command.');
  command.action(() => undefined);
  program.parse(['prune', ...REQUIRED, ...extra], { from: 'user' });
  return command.opts<PruneOptions>();
}

function pruneValue(...extra: string[]) {
  const { kind } = toPruneSpec(parse(...extra));
  if (kind?.$case !== 'prune') throw new Error('not a prune spec');
  return kind.value;
}

describe('the spec of a command line', () => {
  test('has absolute paths and leaves defaults to the service', () => {
    expect(pruneValue()).toMatchObject({
      model: resolve('models/a'),
      output: resolve('out'),
      sparsity: 0.7,
      options: { score: 1, allocation: 0, iterations: 10, learningRates: [], forbidNegativeLearningRates: false },
      preset: 1,
      layerBudget: 0,
      pattern: 1,
      propagation: 0,
      calibration: { path: resolve('text.txt'), morePaths: [], samples: 0, sequenceLength: 0, seed: 0, sampling: 1, textField: 'text' },
      selection: undefined,
    });
  });

  test.each([
    [['--score', 'magnitude'], { options: { score: 2 } }],
    [['--preset', 'best'], { preset: 3, layerBudget: 0, repair: { method: 0, iterations: 0 } }],
    [['--allocation', 'uniform'], { options: { allocation: 2 } }],
    [['--layer-budget', 'owl'], { layerBudget: 2, layerBudgetOptions: undefined }],
    [
      ['--layer-budget', 'owl', '--owl-lambda', '0.08', '--owl-threshold', '5'],
      { layerBudget: 2, layerBudgetOptions: { owl: { lambda: 0.08, threshold: 5 } } },
    ],
    [
      ['--layer-budget', 'alpha', '--alpha-metric', 'mid', '--alpha-epsilon', '0.2', '--alpha-per', 'projection'],
      { layerBudget: 3, layerBudgetOptions: { alpha: { metric: 2, epsilon: 0.2, granularity: 2 } } },
    ],
    [['--layer-budget', 'optimal'], { layerBudget: 5, layerBudgetOptions: undefined }],
    [
      ['--layer-budget', 'optimal', '--optimal-spread', '0.1', '--optimal-samples', '16'],
      { layerBudget: 5, layerBudgetOptions: { optimal: { spread: 0.1, samples: 16 } } },
    ],
    [['--layer-budget', 'ratios.npy'], { layerBudget: 4, layerBudgetOptions: { file: resolve('ratios.npy') } }],
    [['--input-recalc'], { propagation: 2 }],
    [['--propagation', 'staged'], { propagation: 3 }],
    [
      ['--iterations', '3', '--learning-rates', '0.1,0.2', '--no-negative-rates'],
      { options: { iterations: 3, learningRates: [0.1, 0.2], forbidNegativeLearningRates: true } },
    ],
    [
      [
        '--only',
        'mlp',
        '--only',
        'q_proj',
        '--skip',
        'gate',
        '--skip-layers',
        '0,2-3',
        '--target',
        'up_proj=0.5',
        '--target',
        'down_proj=0.6',
      ],
      {
        selection: {
          only: ['mlp', 'q_proj'],
          skip: ['gate'],
          skipLayers: [0, 2, 3],
          targets: [
            { pattern: 'up_proj', sparsity: 0.5 },
            { pattern: 'down_proj', sparsity: 0.6 },
          ],
        },
      },
    ],
    [['--allocation', 'optimal'], { options: { allocation: Allocation.OPTIMAL }, qualityInputs: QualityInputs.LAST, sketches: 0 }],
    [['--quality-inputs', 'all', '--sketches', '4'], { qualityInputs: QualityInputs.ALL, sketches: 4 }],
    [['--samples', '32', '--seq-len', '512', '--seed', '7'], { calibration: { samples: 32, sequenceLength: 512, seed: 7 } }],
    [
      ['--calibration', 'more/*.parquet', '--text-field', 'content', '--sampling', 'concatenated'],
      { calibration: { path: resolve('text.txt'), morePaths: [resolve('more/*.parquet')], textField: 'content', sampling: 2 } },
    ],
    [
      ['--eval', 'test/*.raw', '--eval-samples', '5', '--seq-len', '64', '--text-field', 'content'],
      { evaluation: { path: resolve('test/*.raw'), morePaths: [], samples: 5, sequenceLength: 64, textField: 'content' } },
    ],
  ])('%p', (flags, expected) => {
    expect(pruneValue(...flags)).toMatchObject(expected);
  });

  test('asks for a recorded trace only when one is to be written', () => {
    expect(toPruneSpec(parse()).recordTrace).toBe(false);
    expect(toPruneSpec(parse('--trace-out', 'trace.json')).recordTrace).toBe(true);
  });
});

test('a file of ratios is looked for before a service is started, and may be read by it', () => {
  const options = parse('--layer-budget', 'ratios.npy');
  expect(localPathChecks(options)).toContainEqual(expect.objectContaining({ path: 'ratios.npy', expected: 'exists' }));
  expect(dataFiles(options)).toContain('ratios.npy');
  expect(dataFiles(parse('--layer-budget', 'alpha'))).toEqual(['text.txt']);
});

test('the job id is the same for the same options and another for others', () => {
  expect(jobIdOf(toPruneSpec(parse()))).toBe(jobIdOf(toPruneSpec(parse())));
  expect(jobIdOf(toPruneSpec(parse()))).not.toBe(jobIdOf(toPruneSpec(parse('--seed', '1'))));
  expect(jobIdOf(toPruneSpec(parse()))).toMatch(/^[A-Za-z0-9_-]{1,63}$/);
});
