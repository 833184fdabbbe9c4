import { describe, expect, test } from '@jest/globals';
import { Allocation, Repair, RepairTargets, Score } from '@secateur/proto/allocation';
import type { PruneSpec } from '@secateur/proto/job';
import { JobSpec, LayerBudget, Pattern, Preset, Propagation } from '@secateur/proto/job';
import { resolveJobSpec } from './resolve-spec.js';

type Given = Parameters<typeof PruneSpec.fromPartial>[0];

function resolved(preset: Preset, given: Given = {}): PruneSpec {
  const value = { model: 'm', output: 'o', sparsity: 0.5, calibration: { path: 'a.txt' }, preset, ...given };
  const { kind } = resolveJobSpec(JobSpec.fromPartial({ kind: { $case: 'prune', value } }));
  if (kind?.$case !== 'prune') throw new Error('not a prune spec');
  return kind.value;
}

describe('a preset', () => {
  test('that is published, or none, is what a spec without settings is', () => {
    const { preset, ...published } = resolved(Preset.PUBLISHED);
    expect(preset).toBe(Preset.PUBLISHED);
    expect(resolved(Preset.UNSPECIFIED)).toEqual({ preset, ...published });
    expect(published).toMatchObject({
      options: { allocation: Allocation.TRIM, score: Score.WANDA },
      layerBudget: LayerBudget.UNIFORM,
      propagation: Propagation.DENSE_BLOCK,
      repair: { method: Repair.NONE },
      calibration: { samples: 0 },
    });
  });

  test('fills in what is not given', () => {
    expect(resolved(Preset.FAST)).toMatchObject({
      options: { allocation: Allocation.UNIFORM },
      layerBudget: LayerBudget.UNIFORM,
      propagation: Propagation.DENSE_BLOCK,
      repair: { method: Repair.FIT, iterations: 5 },
      calibration: { samples: 32 },
    });
    expect(resolved(Preset.BEST)).toMatchObject({
      options: { allocation: Allocation.UNIFORM },
      layerBudget: LayerBudget.OPTIMAL,
      propagation: Propagation.STAGED,
      repair: { method: Repair.ADMM, iterations: 20, targets: RepairTargets.DENSE },
      calibration: { samples: 0 },
    });
  });

  test('gives way to what is given', () => {
    const given = {
      options: { allocation: Allocation.TRIM },
      layerBudget: LayerBudget.UNIFORM,
      propagation: Propagation.DENSE_BLOCK,
      repair: { method: Repair.NONE, iterations: 7 },
      calibration: { path: 'a.txt', samples: 9 },
    };
    for (const preset of [Preset.FAST, Preset.BEST]) expect(resolved(preset, given)).toMatchObject(given);
  });

  test('has dense targets where inputs are staged', () => {
    const own = { repair: { targets: RepairTargets.OWN } };
    expect(resolved(Preset.BEST, own)).toMatchObject({ ...own, propagation: Propagation.DENSE_BLOCK });
    const inputsOfBlock = { propagation: Propagation.DENSE_BLOCK };
    expect(resolved(Preset.BEST, inputsOfBlock)).toMatchObject({ ...inputsOfBlock, ...own });
  });

  test('leaves to patterns, rows and targets that are given what they decide', () => {
    const grouped = { pattern: Pattern.GROUPED, options: { groupPattern: { dropped: 2, group: 4 } } };
    expect(resolved(Preset.BEST, grouped)).toMatchObject({ layerBudget: LayerBudget.UNIFORM, repair: { method: Repair.FIT } });
    const rows = { rowSparsities: 'rows.safetensors' };
    expect(resolved(Preset.BEST, rows)).toMatchObject({ options: { allocation: Allocation.GIVEN }, repair: { method: Repair.FIT } });
    const targets = { selection: { targets: [{ pattern: 'mlp', sparsity: 0.6 }] } };
    expect(resolved(Preset.BEST, targets)).toMatchObject({ layerBudget: LayerBudget.UNIFORM, repair: { method: Repair.ADMM } });
    const score = { options: { score: Score.SPARSEGPT } };
    for (const preset of [Preset.FAST, Preset.BEST]) expect(resolved(preset, score)).toMatchObject({ repair: { method: Repair.NONE } });
  });

  test('that is resolved stays as it is', () => {
    for (const preset of [Preset.FAST, Preset.BEST]) expect(resolved(preset, resolved(preset))).toEqual(resolved(preset));
  });

  test('that is unknown is refused by name', () => {
    expect(() => resolved(Preset.UNRECOGNIZED)).toThrow(/prune\.preset must be published, fast or best/);
  });
});
