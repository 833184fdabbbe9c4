/** Broken models and data end in an error that names what is wrong, before any node works and before anything is written. */
import { cp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '@secateur/checkpoint';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, LayerBudget, LayerBudgetOptions, PruneSpec, TokenSource, type JobSpec } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { pruneSpec } from '../support/jobs.js';
import { modelPath, withTemporaryFolder } from '../support/paths.js';

const WEIGHTS = 'model.safetensors';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1 });
});
afterAll(() => cluster[Symbol.asyncDispose]());

/** Runs a job on a copy of a model that `damage` has changed; returns its error and checks that nothing was written. */
async function errorAfter(
  damage: (model: string) => Promise<void>,
  change: (spec: JobSpec, folder: string) => JobSpec = (spec) => spec,
): Promise<string> {
  return withTemporaryFolder(async (folder) => {
    const model = join(folder, 'model');
    await cp(modelPath('books-opt'), model, { recursive: true });
    await damage(model);
    const before = (await readdir(folder)).sort();
    const spec = change(pruneSpec('books-opt', join(folder, 'pruned'), { model }), folder);
    let message: string;
    try {
      const { id } = await cluster.client.createJob({ spec });
      for await (const _event of cluster.client.watchJob(id));
      const job = await cluster.client.getJob(id);
      expect(job.state).toBe(JobState.FAILED);
      message = job.error?.message ?? '';
    } catch (error) {
      message = String(error);
    }
    expect((await readdir(folder)).sort()).toEqual(before);
    return message;
  });
}

async function changeConfig(model: string, change: Readonly<Record<string, unknown>>): Promise<void> {
  const path = join(model, 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({ ...config, ...change }));
}

describe('a broken model', () => {
  test('truncated weights', async () => {
    expect(await errorAfter((model) => truncate(join(model, WEIGHTS), 1_000_000))).toMatch(/model\.safetensors/);
  });

  test('a NaN in a projection is named with its tensor', async () => {
    const tensor = 'model.decoder.layers.2.fc1.weight';
    const message = await errorAfter(async (model) => {
      const path = join(model, WEIGHTS);
      const checkpoint = await openCheckpoint(model);
      const { fileOffset } = checkpoint.tensors.get(tensor)!;
      await checkpoint.close();
      const bytes = await readFile(path);
      bytes.writeUInt16LE(0x7e00, fileOffset + 2 * 1234);
      await writeFile(path, bytes);
    });
    expect(message).toContain(tensor);
    expect(message).toMatch(/NaN|finite/);
    expect(message).toContain('1234');
  });

  test('a missing weight file', async () => {
    expect(await errorAfter((model) => rm(join(model, WEIGHTS)))).toMatch(/model\.safetensors/);
  });

  test('an unknown architecture is refused by name', async () => {
    expect(await errorAfter((model) => changeConfig(model, { model_type: 'mamba' }))).toMatch(/mamba/);
  });

  test('a config that contradicts the tensors names tensor and shapes', async () => {
    expect(await errorAfter((model) => changeConfig(model, { ffn_dim: 1024 }))).toMatch(/fc1.*768|768.*fc1/s);
  });

  test('an option this version does not compute is refused by name', async () => {
    expect(await errorAfter((model) => changeConfig(model, { activation_function: 'gelu' }))).toMatch(/activation_function/);
  });
});

describe('broken calibration data', () => {
  const withCalibration =
    (path: string) =>
    (spec: JobSpec, folder: string): JobSpec => {
      if (spec.kind?.$case !== 'prune') throw new Error('not a prune spec');
      const calibration = TokenSource.fromPartial({ path: join(folder, path), samples: 8, sequenceLength: 256 });
      return { ...spec, kind: { $case: 'prune', value: { ...spec.kind.value, calibration } } };
    };

  test('empty text says how much is missing', async () => {
    const message = await errorAfter((model) => writeFile(join(model, 'empty.txt'), ''), withCalibration('model/empty.txt'));
    expect(message).toMatch(/empty\.txt/);
    expect(message).toMatch(/256|token/);
  });

  test('a line that is not JSON is named', async () => {
    const message = await errorAfter(
      (model) => writeFile(join(model, 'broken.jsonl'), '{"text": "a"}\n{"text":\n'),
      withCalibration('model/broken.jsonl'),
    );
    expect(message).toMatch(/broken\.jsonl/);
    expect(message).toMatch(/2/);
  });

  test('a file that is not there', async () => {
    expect(await errorAfter(() => Promise.resolve(), withCalibration('nowhere.txt'))).toMatch(/nowhere\.txt/);
  });
});

describe('a broken file of ratios', () => {
  const NAMES = [0, 1, 2, 3].map((block) => `model.decoder.layers.${block}`);
  const ratios = (values: readonly number[]): string =>
    JSON.stringify(Object.fromEntries(values.map((value, index) => [NAMES[index], value])));

  test.each([
    ['that is not there', undefined, /nowhere\.json/],
    ['that is no JSON', '{"0": 0.7,', /ratios\.json: it is not valid JSON/],
    ['with a block missing', ratios([0.7, 0.7, 0.7]), /ratios\.json: there is no ratio for model\.decoder\.layers\.3\.self_attn\.q_proj/],
    [
      'with a block too many',
      JSON.stringify({ 0: 0.7, 1: 0.7, 2: 0.7, 3: 0.7, 4: 0.7 }),
      /ratios\.json: the model has no block and no projection 4/,
    ],
    [
      'with a ratio out of range',
      ratios([0.7, 0.7, 0.7, 1.2]),
      /ratios\.json: model\.decoder\.layers\.3 has 1\.2; ratios are above 0 and below 1/,
    ],
    ['of another sparsity', ratios([0.6, 0.6, 0.6, 0.6]), /ratios\.json: its ratios drop 60\.00 % of the weights/],
  ])('%s', async (_, content, message) => {
    const file = content === undefined ? 'nowhere.json' : 'ratios.json';
    const found = await errorAfter(
      (model) => (content === undefined ? Promise.resolve() : writeFile(join(model, file), content)),
      (spec, folder) => {
        if (spec.kind?.$case !== 'prune') throw new Error('not a prune spec');
        const layerBudgetOptions = LayerBudgetOptions.fromPartial({ file: join(folder, 'model', file) });
        const value = { ...spec.kind.value, layerBudget: LayerBudget.GIVEN, layerBudgetOptions };
        return { ...spec, kind: { $case: 'prune', value } };
      },
    );
    expect(found).toMatch(message);
  });
});

test.each([
  ['model', { model: '/etc' }],
  ['ratios', { layerBudget: LayerBudget.GIVEN, layerBudgetOptions: { file: '/etc/hostname' } }],
  ['row sparsities', { rowSparsities: '/etc/hostname', options: { allocation: Allocation.GIVEN } }],
])('a path of the %s outside the allowed roots is refused', async (_, change) => {
  const message = await errorAfter(
    () => Promise.resolve(),
    (spec) =>
      spec.kind?.$case === 'prune'
        ? { ...spec, kind: { $case: 'prune', value: PruneSpec.fromPartial({ ...spec.kind.value, ...change }) } }
        : spec,
  );
  expect(message).toMatch(/\/etc.*outside/);
});
