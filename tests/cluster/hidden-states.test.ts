/** Hidden states kept in bf16: how little they change, how much less memory they take, and that nothing depends on the cluster. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { TokenSource } from '@secateur/proto/job';
import { HiddenStates } from '@secateur/proto/model';
import type { JobPlan } from '@secateur/proto/plan';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually, evaluate, evaluateSpec, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, MODELS, modelPath, withTemporaryFolder, type ModelName } from '../support/paths.js';

/** Documented in docs/architecture.md. */
const PERPLEXITY_TOLERANCE = 0.001;
const PRUNED_PERPLEXITY_TOLERANCE = 0.01;
const MOVED_WEIGHTS_TOLERANCE = 0.01;

const BF16 = { hiddenStates: HiddenStates.BF16 };

/** The first of the recorded ids: a share of them tells as much, sooner. */
const idsOf = (model: ModelName, use: 'calibration' | 'eval') =>
  TokenSource.fromPartial({ path: fixturePath('calibration', `${model}-${use}.safetensors`), samples: 32 });

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1, threads: 2 });
});
afterAll(() => cluster[Symbol.asyncDispose]());

/** The bits of all masks of an output; 1 = dropped. */
async function readMaskBits(output: string): Promise<Buffer> {
  const file = await readFile(join(output, 'masks.safetensors'));
  return file.subarray(8 + Number(file.readBigUInt64LE(0)));
}

function countOnes(bytes: Buffer): number {
  let ones = 0;
  for (let byte of bytes) for (; byte !== 0; byte &= byte - 1) ones += 1;
  return ones;
}

test.each(MODELS)('the perplexity of %s stays close', async (model) => {
  const { client } = cluster;
  const data = idsOf(model, 'eval');
  const { perplexity: wide } = await evaluate(client, `${model}-f32`, evaluateSpec(model, modelPath(model), { data }));
  const { perplexity: narrow } = await evaluate(client, `${model}-bf16`, evaluateSpec(model, modelPath(model), { data, ...BF16 }));
  expect(narrow).not.toBe(wide);
  expect(Math.abs(narrow / wide - 1)).toBeLessThan(PERPLEXITY_TOLERANCE);
});

describe.each(['books-qwen2', 'books-opt'] as const)('pruning %s', (model) => {
  test('drops nearly the same weights, and the same on any nodes and threads', () =>
    withTemporaryFolder(async (folder) => {
      const [wide, narrow, elsewhere] = ['f32', 'bf16', 'elsewhere'].map((name) => join(folder, name)) as [string, string, string];
      const calibration = idsOf(model, 'calibration');
      await prune(cluster.client, `${model}-prune-f32`, pruneSpec(model, wide, { calibration }));
      const report = await prune(cluster.client, `${model}-prune-bf16`, pruneSpec(model, narrow, { calibration, ...BF16 }));
      expect(report.config?.hiddenStates).toBe(HiddenStates.BF16);
      const masks = await readMaskBits(wide);
      const others = await readMaskBits(narrow);
      expect(others).toHaveLength(masks.length);
      const differing = countOnes(Buffer.from(masks.map((byte, index) => byte ^ others[index]!)));
      expect(differing).toBeGreaterThan(0);
      // A weight that is dropped in place of another differs in both places.
      expect(differing / 2 / countOnes(masks)).toBeLessThan(MOVED_WEIGHTS_TOLERANCE);
      const perplexityOf = async (directory: string, id: string): Promise<number> =>
        (await evaluate(cluster.client, `${model}-${id}`, evaluateSpec(model, directory, { data: idsOf(model, 'eval') }))).perplexity;
      const ratio = (await perplexityOf(narrow, 'after-bf16')) / (await perplexityOf(wide, 'after-f32'));
      expect(Math.abs(ratio - 1)).toBeLessThan(PRUNED_PERPLEXITY_TOLERANCE);

      await using other = await Cluster.start({ nodes: 2, threads: 1 });
      await prune(other.client, 'elsewhere', pruneSpec(model, elsewhere, { calibration, ...BF16 }));
      expect(await hashOutput(elsewhere)).toEqual(await hashOutput(narrow));
    }));
});

test('a plan has half the bytes of hidden states, by the service and by the command', async () => {
  const { client } = cluster;
  const statesIn = ({ nodes }: Pick<JobPlan, 'nodes'>): number | undefined =>
    nodes[0]?.memory?.engine.find(({ purpose }) => purpose === 'hidden states')?.bytes;
  const wide = statesIn(await client.planJob(pruneSpec('books-opt', '')));
  const narrow = statesIn(await client.planJob(pruneSpec('books-opt', '', BF16)));
  expect(wide).toBeGreaterThan(0);
  expect(narrow).toBe((wide ?? 0) / 2);
  const calibration = fixturePath('calibration', 'books-opt-calibration.safetensors');
  const args = ['plan', '--model', modelPath('books-opt'), '--calibration', calibration, '--sparsity', '0.7', '--nodes', '1', '--json'];
  const { stdout } = await runCommand([...args, '--backend', 'cpu', '--hidden-states', 'bf16']);
  expect(statesIn(JSON.parse(stdout) as JobPlan)).toBe(narrow);
});

test('a job that was begun with the others is not gone on with', () =>
  withTemporaryFolder(async (folder) => {
    const { client } = cluster;
    const output = join(folder, 'pruned');
    await client.createJob({ jobId: 'begun', spec: pruneSpec('books-llama', output) });
    await eventually(async () => (await client.getJob('begun')).finishedLayers >= 1, 'a block is finished');
    await client.cancelJob('begun');
    await expect(prune(client, 'changed', pruneSpec('books-llama', output, BF16))).rejects.toThrow(
      /holds an unfinished job with another model, data or options/,
    );
    expect((await prune(client, 'begun', pruneSpec('books-llama', output))).resumedLayers).toBeGreaterThanOrEqual(1);
  }));
