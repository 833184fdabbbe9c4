/** Small random models of every architecture, measured and pruned by real processes, against a reference in float64. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { TokenSource } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { evaluate, evaluateSpec, prune, pruneSpec } from '../support/jobs.js';
import { withTemporaryFolder } from '../support/paths.js';
import { referenceLoss, type ModelConfig } from '../support/reference-model.js';
import { readTinyCheckpoint, writeTinyCheckpoint, writeTinyTokens } from '../support/tiny-checkpoint.js';

const SAMPLES = 9;
const LENGTH = 24;
const VOCABULARY = 61;
/** Losses are about log(61) = 4; float32 through two blocks changes their mean by less. */
const TOLERANCE = 2e-5;

const GATED = {
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: VOCABULARY,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
} as const;

const MODELS: readonly (readonly [string, ModelConfig])[] = [
  [
    'Qwen3: normalised heads that are wider than the hidden states',
    { ...GATED, model_type: 'qwen3', head_dim: 12, tie_word_embeddings: true },
  ],
  [
    'LLaMA 3: scaled frequencies',
    {
      ...GATED,
      model_type: 'llama',
      rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
    },
  ],
  [
    'LLaMA with biases everywhere and linear scaling',
    { ...GATED, model_type: 'llama', attention_bias: true, mlp_bias: true, rope_scaling: { rope_type: 'linear', factor: 2 } },
  ],
  ['Mistral: a window in every block', { ...GATED, model_type: 'mistral', sliding_window: 5 }],
  [
    'Qwen2 with a window in its last block',
    { ...GATED, model_type: 'qwen2', use_sliding_window: true, sliding_window: 3, max_window_layers: 1 },
  ],
  [
    'OPT 350m: normalised afterwards, tokens narrower than the hidden states',
    {
      model_type: 'opt',
      do_layer_norm_before: false,
      hidden_size: 32,
      word_embed_proj_dim: 20,
      ffn_dim: 64,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      vocab_size: VOCABULARY,
      max_position_embeddings: 64,
      tie_word_embeddings: true,
    },
  ],
];

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 2 });
});

afterAll(() => cluster[Symbol.asyncDispose]());

describe.each(MODELS)('%s', (name, config) => {
  test('losses are those of float64, before and after pruning', () =>
    withTemporaryFolder(async (folder) => {
      const model = join(folder, 'model');
      const output = join(folder, 'pruned');
      const path = join(folder, 'ids.safetensors');
      await writeTinyCheckpoint(model, config);
      const ids = await writeTinyTokens(path, SAMPLES, LENGTH, VOCABULARY);
      const data = TokenSource.fromPartial({ path });
      const id = name.replaceAll(/[^a-zA-Z0-9]/g, '').slice(0, 40);
      const measure = async (directory: string, jobId: string): Promise<void> => {
        const spec = evaluateSpec('books-opt', directory);
        if (spec.kind?.$case === 'evaluate') spec.kind.value.data = data;
        const { losses } = await evaluate(cluster.client, jobId, spec);
        const tensors = await readTinyCheckpoint(directory);
        const differences = ids.map((sample, index) => Math.abs(losses[index]! - referenceLoss(config, tensors, sample)));
        expect(Math.max(...differences)).toBeLessThan(TOLERANCE);
      };
      await measure(model, `${id}-dense`);

      const spec = pruneSpec('books-opt', output, { model, sparsity: 0.6, calibration: data, allocation: Allocation.TRIM });
      const report = await prune(cluster.client, `${id}-prune`, spec);
      expect(report.projections).toHaveLength(2 * (config.model_type === 'opt' ? 6 : 7));
      const before = await readTinyCheckpoint(model);
      const after = await readTinyCheckpoint(output);
      const pruned = new Set(report.projections.map((projection) => `${projection.name}.weight`));
      expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
      for (const [tensor, values] of after) {
        if (pruned.has(tensor)) expect(values.filter((value) => value === 0).length / values.length).toBeCloseTo(0.6, 1);
        else expect(values).toEqual(before.get(tensor));
      }
      await measure(output, `${id}-pruned`);
    }));
});

test('a folder with nothing but a config.json is planned by it', () =>
  withTemporaryFolder(async (folder) => {
    const config = {
      model_type: 'qwen2',
      hidden_act: 'silu',
      hidden_size: 8192,
      intermediate_size: 29_568,
      num_hidden_layers: 80,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      vocab_size: 152_064,
      max_position_embeddings: 131_072,
      rms_norm_eps: 1e-5,
      torch_dtype: 'bfloat16',
    };
    await writeFile(join(folder, 'config.json'), JSON.stringify(config));
    const unnamed = TokenSource.fromPartial({});
    const plan = await cluster.client.planJob(pruneSpec('books-opt', '', { model: folder, calibration: unnamed }));
    expect(plan).toMatchObject({ fromConfigAlone: true, parameters: 72_706_203_648, samples: 256, sequenceLength: 2048, groups: 32 });
    expect(plan.shards).toHaveLength(81);
    expect(plan.shards[0]).toMatchObject({ id: 'embedding', bytes: 152_064 * 8192 * 2, weights: 0 });
    for (const node of plan.nodes) {
      expect(node).toMatchObject({ groups: 16, fits: false });
      // Hidden states of 128 samples of 2048 tokens.
      expect(node.memory?.engine).toContainEqual({ purpose: 'hidden states', bytes: 128 * 2048 * 8192 * 4 });
    }

    await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, torch_dtype: 'float8' }));
    await expect(cluster.client.planJob(pruneSpec('books-opt', '', { model: folder, calibration: unnamed }))).rejects.toThrow(
      'torch_dtype',
    );
    await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, model_type: 'gpt2' }));
    await expect(cluster.client.planJob(pruneSpec('books-opt', '', { model: folder, calibration: unnamed }))).rejects.toThrow('gpt2');
  }));
