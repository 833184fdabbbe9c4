import { describe, expect, test } from '@jest/globals';
import { Propagation } from '@secateur/proto/job';
import { TensorRole } from '@secateur/proto/model';
import { InputSite } from '@secateur/proto/statistics';
import type { PlannedBlock, PlannedProjection } from '../model/model-plan.js';
import { planStages, projectionsRun, type PruningStage } from './stages.js';

const { ATTENTION_INPUT, ATTENTION_OUTPUT, FEED_FORWARD_INPUT, FEED_FORWARD_HIDDEN } = InputSite;

const projection = (name: string, role: TensorRole, site: InputSite): PlannedProjection => ({ name, role, rows: 2, columns: 3, site });

const PROJECTIONS = [
  projection('q', TensorRole.QUERY_WEIGHT, ATTENTION_INPUT),
  projection('k', TensorRole.KEY_WEIGHT, ATTENTION_INPUT),
  projection('v', TensorRole.VALUE_WEIGHT, ATTENTION_INPUT),
  projection('o', TensorRole.OUTPUT_WEIGHT, ATTENTION_OUTPUT),
  projection('gate', TensorRole.GATE_WEIGHT, FEED_FORWARD_INPUT),
  projection('up', TensorRole.UP_WEIGHT, FEED_FORWARD_INPUT),
  projection('down', TensorRole.DOWN_WEIGHT, FEED_FORWARD_HIDDEN),
];
const SITES = [ATTENTION_INPUT, ATTENTION_OUTPUT, FEED_FORWARD_INPUT, FEED_FORWARD_HIDDEN];
const BLOCK: PlannedBlock = { index: 0, shard: { id: 'block/0', tensors: [], attentionWindow: 0 }, projections: PROJECTIONS };

const named = (...names: readonly string[]): PlannedProjection[] => PROJECTIONS.filter(({ name }) => names.includes(name));
const told = (stages: readonly PruningStage[]) =>
  stages.map(({ collects, allocates }) => [collects, allocates.map(({ name }) => name).join()]);

describe('planStages', () => {
  test('by the dense block: one stage', () => {
    expect(told(planStages(PROJECTIONS, Propagation.DENSE_BLOCK))).toEqual([[SITES, 'q,k,v,o,gate,up,down']]);
  });

  test('staged: one for each site, which collects that site', () => {
    expect(told(planStages(PROJECTIONS, Propagation.STAGED))).toEqual([
      [[ATTENTION_INPUT], 'q,k,v'],
      [[ATTENTION_OUTPUT], 'o'],
      [[FEED_FORWARD_INPUT], 'gate,up'],
      [[FEED_FORWARD_HIDDEN], 'down'],
    ]);
  });

  test('with recalculated inputs: the first collects all sites, the others theirs once more', () => {
    expect(told(planStages(PROJECTIONS, Propagation.RECALCULATED_INPUTS))).toEqual([
      [SITES, 'q,k,v'],
      [[ATTENTION_OUTPUT], 'o'],
      [[FEED_FORWARD_INPUT], 'gate,up'],
      [[FEED_FORWARD_HIDDEN], 'down'],
    ]);
  });

  test('what is not pruned is not collected for, and leaves no stage behind', () => {
    const some = named('v', 'up', 'down');
    expect(told(planStages(some, Propagation.DENSE_BLOCK))).toEqual([
      [[ATTENTION_INPUT, FEED_FORWARD_INPUT, FEED_FORWARD_HIDDEN], 'v,up,down'],
    ]);
    expect(told(planStages(named('o', 'down'), Propagation.RECALCULATED_INPUTS))).toEqual([
      [[ATTENTION_OUTPUT, FEED_FORWARD_HIDDEN], 'o'],
      [[FEED_FORWARD_HIDDEN], 'down'],
    ]);
    expect(told(planStages(some, Propagation.STAGED))).toEqual([
      [[ATTENTION_INPUT], 'v'],
      [[FEED_FORWARD_INPUT], 'up'],
      [[FEED_FORWARD_HIDDEN], 'down'],
    ]);
    for (const propagation of [Propagation.DENSE_BLOCK, Propagation.RECALCULATED_INPUTS, Propagation.STAGED])
      expect(planStages([], propagation)).toEqual([]);
  });

  test('is not asked before the defaults are known', () => {
    expect(() => planStages(PROJECTIONS, Propagation.UNSPECIFIED)).toThrow(/defaults/);
  });
});

test.each([
  [[ATTENTION_INPUT], ''],
  [[ATTENTION_OUTPUT], 'q,k,v'],
  [[ATTENTION_INPUT, FEED_FORWARD_INPUT], 'q,k,v,o'],
  [SITES, 'q,k,v,o,gate,up'],
])('a pass that collects %p runs %p', (collects, names) => {
  expect(
    projectionsRun(BLOCK, { collects })
      .map(({ name }) => name)
      .join(),
  ).toBe(names);
});
