/** Jobs that prune some projections only, by real processes. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { ProjectionSelection, Propagation, TokenSource } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { withTemporaryFolder } from '../support/paths.js';
import { readTinyCheckpoint, writeTinyCheckpoint, writeTinyTokens } from '../support/tiny-checkpoint.js';

const VOCABULARY = 61;
const CONFIG = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  vocab_size: VOCABULARY,
  max_position_embeddings: 128,
  tie_word_embeddings: false,
} as const;

/** Block 0 and the last one are left out whole, so the others are pruned behind a dense block and nothing is read of the last. */
const SELECTION = ProjectionSelection.fromPartial({
  only: ['mlp', 'q_proj'],
  skip: ['gate_proj'],
  skipLayers: [0, 3],
  targets: [
    { pattern: 'layers\\.1\\..*down_proj', sparsity: 0.25 },
    { pattern: 'down_proj', sparsity: 0.75 },
  ],
});

const TARGETS = new Map([
  ['model.layers.1.self_attn.q_proj', 0.5],
  ['model.layers.1.mlp.up_proj', 0.5],
  ['model.layers.1.mlp.down_proj', 0.25],
  ['model.layers.2.self_attn.q_proj', 0.5],
  ['model.layers.2.mlp.up_proj', 0.5],
  ['model.layers.2.mlp.down_proj', 0.75],
]);

test.each([
  ['the dense block', Propagation.DENSE_BLOCK],
  ['recalculated inputs', Propagation.RECALCULATED_INPUTS],
  ['stages', Propagation.STAGED],
])(
  'projections that are left out keep their bytes, are in no mask and are listed; the others get their own sparsity, by %s',
  (_, propagation) =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 2 });
      const model = join(folder, 'model');
      const path = join(folder, 'ids.safetensors');
      await writeTinyCheckpoint(model, CONFIG);
      await writeTinyTokens(path, 12, 20, VOCABULARY);
      const calibration = TokenSource.fromPartial({ path });
      const spec = (selection: ProjectionSelection, output: string) =>
        pruneSpec('books-llama', output, { model, sparsity: 0.5, calibration, selection, propagation });

      const plan = await cluster.client.planJob(spec(SELECTION, ''));
      const planned = plan.shards.flatMap(({ projections }) => projections);
      expect(planned).toHaveLength(28);
      expect(new Map(planned.filter(({ target }) => target > 0).map(({ name, target }) => [name, target]))).toEqual(TARGETS);
      expect(plan.shards.map(({ sparsity }) => sparsity > 0)).toEqual([false, false, true, true, false]);

      const output = join(folder, 'pruned');
      const report = await prune(cluster.client, 'selected', spec(SELECTION, output));
      expect(new Map(report.projections.map(({ name, target }) => [name, target]))).toEqual(TARGETS);
      expect(report.skipped).toHaveLength(22);
      expect(report.skipped).toContain('model.layers.1.mlp.gate_proj');
      const weights = planned.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
      const target = planned.reduce((sum, { rows, columns, target: share }) => sum + share * rows * columns, 0) / weights;
      expect(report.targetSparsity).toBeCloseTo(target, 12);
      expect(report.actualSparsity).toBeCloseTo(target, 2);

      const before = await readTinyCheckpoint(model);
      for (const [name, values] of await readTinyCheckpoint(output)) {
        const share = TARGETS.get(name.replace(/\.weight$/, ''));
        if (share === undefined) expect(values).toEqual(before.get(name));
        else expect(values.filter((value) => value === 0).length / values.length).toBeCloseTo(share, 1);
      }
      const masks = await readFile(join(output, 'masks.safetensors'));
      const header = JSON.parse(masks.toString('utf8', 8, 8 + Number(masks.readBigUInt64LE()))) as Record<string, unknown>;
      const masked = Object.keys(header).filter((name) => name !== '__metadata__');
      expect(masked.sort()).toEqual([...TARGETS.keys()].map((name) => `${name}.weight`).sort());

      await expect(cluster.client.planJob(spec(ProjectionSelection.fromPartial({ only: ['lm_head'] }), ''))).rejects.toThrow(
        'prune.selection.only "lm_head" is found in no projection',
      );
      await expect(cluster.client.planJob(spec(ProjectionSelection.fromPartial({ skip: ['('] }), ''))).rejects.toThrow(
        'regular expression',
      );
    }),
);
