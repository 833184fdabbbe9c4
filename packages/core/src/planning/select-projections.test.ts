import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { DataType } from '@secateur/proto/model';
import { ProjectionSelection } from '@secateur/proto/job';
import { SecateurError } from '../errors.js';
import { parseArchitecture } from '../model/parse-architecture.js';
import { planShapes } from '../model/plan-model.js';
import { findSelectionViolations, meanTarget, projectionName, selectProjections } from './select-projections.js';

const MODEL = planShapes(
  parseArchitecture({
    model_type: 'llama',
    hidden_size: 16,
    intermediate_size: 40,
    num_hidden_layers: 12,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 50,
    max_position_embeddings: 64,
  }),
  DataType.BF16,
);
const PROJECTIONS = MODEL.blocks.flatMap(({ projections }) => projections);
const NAMES = PROJECTIONS.map(projectionName);

function select(selection: Partial<ProjectionSelection>): Record<string, number> {
  const targets = selectProjections(MODEL, 0.7, ProjectionSelection.fromPartial(selection));
  return Object.fromEntries([...targets].map(([name, target]) => [projectionName({ name }), target]));
}

function errorOf(selection: Partial<ProjectionSelection>): SecateurError {
  try {
    select(selection);
  } catch (error) {
    if (error instanceof SecateurError) return error;
    throw error;
  }
  throw new Error('The selection was accepted.');
}

describe('a selection', () => {
  test('that says nothing is all projections with the sparsity of the job', () => {
    const all = Object.fromEntries(NAMES.map((name) => [name, 0.7]));
    expect(select({})).toEqual(all);
    expect(Object.fromEntries(selectProjections(MODEL, 0.7, undefined))).toEqual(
      Object.fromEntries(PROJECTIONS.map(({ name }) => [name, 0.7])),
    );
  });

  test('takes what one of only is found in, without what one of skip is found in, without blocks', () => {
    const selected = select({ only: ['q_proj$', 'mlp'], skip: ['\\.0\\.', 'gate'], skipLayers: [1, 3, 4, 5, 6, 7, 8, 9, 10, 11] });
    expect(Object.keys(selected)).toEqual([
      'model.layers.2.self_attn.q_proj',
      'model.layers.2.mlp.up_proj',
      'model.layers.2.mlp.down_proj',
    ]);
  });

  test('does not take block 1 for blocks 10 and 11', () => {
    expect(Object.keys(select({ only: ['layers\\.1\\.'] }))).toHaveLength(7);
    expect(Object.keys(select({ only: ['layers\\.1'] }))).toHaveLength(21);
  });

  test('gives the sparsity of the first target that fits', () => {
    const selected = select({
      targets: [
        { pattern: 'layers\\.2\\..*q_proj', sparsity: 0.1 },
        { pattern: 'q_proj|k_proj', sparsity: 0.2 },
      ],
    });
    expect(selected['model.layers.2.self_attn.q_proj']).toBe(0.1);
    expect(selected['model.layers.2.self_attn.k_proj']).toBe(0.2);
    expect(selected['model.layers.3.self_attn.q_proj']).toBe(0.2);
    expect(selected['model.layers.3.self_attn.v_proj']).toBe(0.7);
  });

  test('never holds what is skipped, and always what only names', () => {
    const kind = fc.constantFrom('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj');
    fc.assert(
      fc.property(fc.uniqueArray(kind, { minLength: 2 }), fc.uniqueArray(fc.nat(11), { maxLength: 11 }), (kinds, skipLayers) => {
        const [skipped, ...kept] = kinds as [string, ...string[]];
        const selected = Object.keys(select({ only: kinds, skip: [skipped], skipLayers }));
        const expected = NAMES.filter(
          (name) => kept.some((word) => name.endsWith(word)) && !skipLayers.some((layer) => name.includes(`.${layer}.`)),
        );
        expect(selected).toEqual(expected);
      }),
    );
  });
});

describe('the mean target', () => {
  test('is the share of all weights, those left out counting as whole', () => {
    const targets = selectProjections(MODEL, 0.5, ProjectionSelection.fromPartial({ only: ['q_proj'] }));
    const weights = PROJECTIONS.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    expect(meanTarget(PROJECTIONS, targets)).toBeCloseTo((0.5 * 12 * 16 * 16) / weights, 12);
    // Not a sum that is nearly that.
    expect(meanTarget(PROJECTIONS, selectProjections(MODEL, 0.7, undefined))).toBe(0.7);
  });
});

describe('what concerns nothing is refused', () => {
  test.each<[string, Partial<ProjectionSelection>, string]>([
    [
      'only',
      { only: ['q_proj', 'lm_head'] },
      '"lm_head" is found in no projection; they have names such as model.layers.0.self_attn.q_proj',
    ],
    ['skip', { skip: ['fc1'] }, '"fc1" is found in no projection'],
    ['targets', { targets: [{ pattern: '^q_proj', sparsity: 0.5 }] }, '"^q_proj" is found in no projection'],
    ['skip_layers', { skipLayers: [11, 12] }, '12 is no block; the model has 0 to 11'],
    ['skip_layers', { skipLayers: [11, 20, 21, 22] }, '20 and 2 others are no blocks; the model has 0 to 11'],
  ])('%s', (field, selection, description) => {
    const error = errorOf(selection);
    expect(error.reason).toBe('INVALID_REQUEST');
    expect(error.violations.map((violation) => violation.field)).toEqual([`prune.selection.${field}`]);
    expect(error.message).toContain(description);
  });

  test('a selection that leaves nothing', () => {
    expect(errorOf({ only: ['q_proj'], skip: ['self_attn'] }).message).toContain('leaves no projection to prune');
  });
});

describe('whatever the model', () => {
  const descriptionsOf = (selection: Partial<ProjectionSelection>): string[] =>
    findSelectionViolations(ProjectionSelection.fromPartial(selection)).map(({ field, description }) => `${field} ${description}`);

  test('patterns that are none are named with the reason', () => {
    expect(descriptionsOf({ only: ['q_proj', '('], skip: ['(?=x)'], targets: [{ pattern: '', sparsity: 0.5 }] })).toEqual([
      expect.stringMatching(/^prune\.selection\.only "\(" is not a regular expression of RE2: .*missing closing/),
      expect.stringMatching(/^prune\.selection\.skip "\(\?=x\)" is not a regular expression of RE2: /),
      'prune.selection.targets "" must not be empty',
    ]);
    expect(descriptionsOf({ only: ['x'.repeat(501)] })[0]).toContain('at most 500 characters');
    expect(descriptionsOf({ skip: Array<string>(101).fill('x') })).toEqual(['prune.selection.skip must be at most 100, not 101']);
  });

  test.each([0, 1, NaN])('a sparsity of %p', (sparsity) => {
    expect(descriptionsOf({ targets: [{ pattern: 'mlp', sparsity }] })[0]).toContain(`above 0 and below 1, not ${sparsity}`);
  });

  test('expressions that would run for ages elsewhere answer at once, or are refused', () => {
    const started = performance.now();
    for (const pattern of ['(a*)*b', '(x+x+)+y', '(.*)*(.*)*(.*)*!', '^(([a-z_.0-9])+.)+$', `${'.?'.repeat(200)}!`]) {
      expect(descriptionsOf({ only: [pattern] })).toEqual([]);
      try {
        select({ only: [pattern] });
      } catch (error) {
        expect(error).toBeInstanceOf(SecateurError);
      }
    }
    expect(descriptionsOf({ only: ['((a{900}){900}){900}'] })[0]).toContain('invalid repeat count');
    // A backtracking engine needs years.
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});
