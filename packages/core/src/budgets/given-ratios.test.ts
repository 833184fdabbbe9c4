import { describe, expect, test } from '@jest/globals';
import { DataType } from '@secateur/proto/model';
import { parseArchitecture } from '../model/parse-architecture.js';
import { planShapes } from '../model/plan-model.js';
import { projectionName, type ProjectionTargets } from '../planning/select-projections.js';
import { targetsOfRatios, type GivenRatios } from './given-ratios.js';

const MODEL = planShapes(
  parseArchitecture({
    model_type: 'opt',
    hidden_size: 16,
    ffn_dim: 64,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    vocab_size: 50,
    max_position_embeddings: 64,
  }),
  DataType.F16,
);
const PROJECTIONS = MODEL.blocks.flatMap(({ projections }) => projections);
const ALL: ProjectionTargets = new Map(PROJECTIONS.map(({ name }) => [name, 0.5]));
const PER_BLOCK = [0.4, 0.5, 0.6];
const OF_BLOCKS = Object.fromEntries(PROJECTIONS.map(({ name }, index) => [projectionName({ name }), PER_BLOCK[Math.floor(index / 6)]]));

function take(ratios: Readonly<Record<string, number>> | readonly number[], targets = ALL, sparsity = 0.5): Record<string, number> {
  const given: GivenRatios = Array.isArray(ratios) ? Float64Array.from(ratios) : new Map(Object.entries(ratios));
  const taken = targetsOfRatios(given, { model: MODEL, targets }, { sparsity, source: 'ratios.json' });
  return Object.fromEntries([...taken].map(([name, target]) => [projectionName({ name }), target]));
}

describe('given ratios', () => {
  test.each<[string, Readonly<Record<string, number>> | readonly number[]]>([
    ['by the index of blocks', { 0: 0.4, 1: 0.5, 2: 0.6 }],
    ['by the names of blocks', { 'model.decoder.layers.0': 0.4, 'model.decoder.layers.1': 0.5, 'model.decoder.layers.2': 0.6 }],
    ['by the names of projections', OF_BLOCKS as Record<string, number>],
    ['in the order of blocks', PER_BLOCK],
    ['in the order of projections', Object.values(OF_BLOCKS) as number[]],
  ])('%s become targets', (_, ratios) => {
    expect(take(ratios)).toEqual(OF_BLOCKS);
  });

  test('of a projection count more than those of its block', () => {
    const name = 'model.decoder.layers.1.self_attn.k_proj';
    expect(take({ 0: 0.4, 1: 0.5, 2: 0.6, [name]: 0.45 })).toEqual({ ...OF_BLOCKS, [name]: 0.45 });
  });

  test('are only asked for what is pruned', () => {
    const pruned = new Map([...ALL].filter(([name]) => name.includes('.1.')));
    expect(Object.values(take({ 1: 0.5 }, pruned))).toEqual(new Array(6).fill(0.5));
    expect(Object.values(take(PER_BLOCK, pruned))).toEqual(new Array(6).fill(0.5));
  });

  test.each<[string, Readonly<Record<string, number>> | readonly number[], RegExp]>([
    ['missing', { 0: 0.5, 2: 0.5 }, /no ratio for model\.decoder\.layers\.1\..*, nor for its block/],
    ['of a block that is not there', { 0: 0.4, 1: 0.5, 2: 0.6, 3: 0.5 }, /no block and no projection 3; it has model\.decoder\.layers\.0/],
    [
      'of a projection that is not there',
      { ...Object.fromEntries(PER_BLOCK.entries()), 'layers.0.q': 0.5 },
      /no block and no projection layers\.0\.q/,
    ],
    ['given twice', { ...Object.fromEntries(PER_BLOCK.entries()), 'model.decoder.layers.2': 0.6 }, /block 2 has two ratios/],
    ['0', { 0: 0, 1: 0.5, 2: 0.6 }, /0 has 0; ratios are above 0 and below 1/],
    ['above 1', [0.4, 0.5, 1.5], /2 has 1\.5/],
    ['no number', [0.4, Number.NaN, 0.5], /1 has NaN/],
    ['too many', [0.5, 0.5, 0.5, 0.5], /it has 4 ratios; the model has 3 blocks with 18 projections/],
    ['of another sparsity', [0.4, 0.5, 0.7], /its ratios drop 53\.33 % of the weights, but the job asks for 0\.5; ask for 0\.5333/],
  ])('that are %s are refused by name', (_, ratios, message) => {
    expect(() => take(ratios)).toThrow(message);
    expect(() => take(ratios)).toThrow(/^ratios\.json: /);
  });
});
