/** The same job on every backend and in every kind of arithmetic: whole jobs, real processes. */
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { runCommand } from '../support/command.js';
import { modelPath, repositoryRoot, withTemporaryFolder, type ModelName } from '../support/paths.js';
import { turnsOf } from '../support/scope.js';
import { writeTinyCheckpoint, writeTinyTokens } from '../support/tiny-checkpoint.js';

/** The CUDA backend with its kernels emulated on the host; the set-up for tests builds it. */
const EMULATED_CUDA = join(repositoryRoot, 'native/cuda/build/cuda-on-host/test/cuda/libsecateur_cuda_on_host_backend.so');

interface Report {
  readonly sparsity: { readonly actual: number };
  readonly projections: readonly {
    readonly name: string;
    readonly learningRate: number | null;
    readonly bestQuality: number;
    readonly actual: number;
    readonly repair?: { readonly errorBefore: number; readonly errorAfter: number };
    readonly swap?: { readonly swaps: number; readonly errorAfter: number };
  }[];
  readonly engine: { readonly backend: string };
  readonly nodes: readonly unknown[];
  readonly config: { readonly compute: string };
}

const SMALL = ['--samples', '8', '--seq-len', '16', '--nodes', '1', '--threads', '1'];

/** English that is here anyway. */
async function textIn(folder: string): Promise<string> {
  const path = join(folder, 'text.txt');
  await copyFile(join(repositoryRoot, 'LICENSE'), path);
  return path;
}

async function pruneWith(model: ModelName, options: readonly string[], folder: string, name: string): Promise<Report> {
  const calibration = await textIn(folder);
  return await reportOf([
    '--model',
    modelPath(model),
    '--calibration',
    calibration,
    '--out',
    join(folder, name),
    '--sparsity',
    '0.7',
    ...options,
  ]);
}

async function pruneTiny(model: string, calibration: string, output: string, options: readonly string[]): Promise<Report> {
  const files = ['--model', model, '--calibration', calibration, '--out', output];
  return await reportOf([...files, '--sparsity', '0.5', '--nodes', '1', '--threads', '1', ...options]);
}

async function reportOf(options: readonly string[]): Promise<Report> {
  const variables = { SECATEUR_CUDA_LIBRARY: EMULATED_CUDA };
  const { exitCode, stdout, stderr } = await runCommand(['prune', '--json', '--quiet', ...options], undefined, variables);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  return JSON.parse(stdout) as Report;
}

/** What is emulated takes its time. */
const EMULATED_TIMEOUT_MS = 600_000;

describe('the cuda backend, emulated on the host', () => {
  // The tiny models below are Llamas, so it is the turn of the other.
  test.each(turnsOf(['books-opt', 'books-llama'] as const, 0, 2))(
    'takes the decisions of the CPU for %s',
    (model) =>
      withTemporaryFolder(async (folder) => {
        const cpu = await pruneWith(model, [...SMALL, '--backend', 'cpu'], folder, 'cpu');
        const cuda = await pruneWith(model, [...SMALL, '--backend', 'cuda'], folder, 'cuda');
        expect([cpu.engine.backend, cuda.engine.backend]).toEqual(['cpu', 'cuda']);
        expect(cuda.projections.map(({ name }) => name)).toEqual(cpu.projections.map(({ name }) => name));
        // Rounding may tip a search whose steps are equally good.
        const differing = cuda.projections.filter(({ learningRate }, index) => learningRate !== cpu.projections[index]?.learningRate);
        expect(differing.length).toBeLessThanOrEqual(1);
        expect(Math.abs(cuda.sparsity.actual - cpu.sparsity.actual)).toBeLessThan(1e-4);
        cuda.projections.forEach(({ bestQuality }, index) => expect(bestQuality).toBeCloseTo(cpu.projections[index]?.bestQuality ?? 0, 3));
      }),
    EMULATED_TIMEOUT_MS,
  );
});

const TINY = {
  model_type: 'llama',
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  vocab_size: 61,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
} as const;

/** A model, and so many samples of 16 tokens for it. */
async function writeTinyInputs(folder: string, samples: number): Promise<{ readonly model: string; readonly calibration: string }> {
  const inputs = { model: join(folder, 'model'), calibration: join(folder, 'tokens.safetensors') };
  await writeTinyCheckpoint(inputs.model, TINY);
  await writeTinyTokens(inputs.calibration, samples, 16, TINY.vocab_size);
  return inputs;
}

test(
  'without a number of nodes a command starts one for the device that there is',
  () =>
    withTemporaryFolder(async (folder) => {
      const { model, calibration } = await writeTinyInputs(folder, 2);
      const files = ['--model', model, '--calibration', calibration];
      const { engine, nodes } = await reportOf([...files, '--out', join(folder, 'out'), '--sparsity', '0.5', '--threads', '1']);
      expect([engine.backend, nodes.length]).toEqual(['cuda', 1]);
    }),
  EMULATED_TIMEOUT_MS,
);

describe('the cuda backend, emulated on the host, does for a tiny model as the CPU does', () => {
  test.each([
    [
      'admm, hidden states of both models in bf16',
      ['--repair', 'admm', '--repair-targets', 'dense', '--propagation', 'staged', '--allocation', 'uniform', '--hidden-states', 'bf16'],
    ],
    ['sparsegpt', ['--score', 'sparsegpt', '--allocation', 'uniform']],
    [
      'swaps and a fit, rows by squared errors',
      ['--swap', '--repair', 'fit', '--repair-iterations', '4', '--layer-quality', 'psnr-dim', '--row-quality', 'mse'],
    ],
    // What the device and the host do together; what the host does alone has cases in the suite of all backends.
    ['an optimal split, judged on sketches, by outliers', ['--allocation', 'optimal', '--quality-inputs', 'all', '--layer-budget', 'owl']],
    ['the variant of Wanda, by sensitivities', ['--score', 'wanda-variant', '--layer-budget', 'optimal', '--optimal-samples', '1']],
  ] as const)(
    '%s',
    (_, options) =>
      withTemporaryFolder(async (folder) => {
        const { model, calibration } = await writeTinyInputs(folder, 8);
        const [cpu, cuda] = [
          await pruneTiny(model, calibration, join(folder, 'cpu'), ['--backend', 'cpu', ...options]),
          await pruneTiny(model, calibration, join(folder, 'cuda'), ['--backend', 'cuda', ...options]),
        ];
        expect([cpu.engine.backend, cuda.engine.backend]).toEqual(['cpu', 'cuda']);
        expect(cuda.projections).toHaveLength(14);
        expect(cuda.sparsity.actual).toBeCloseTo(cpu.sparsity.actual, 3);
        cuda.projections.forEach(({ actual, repair, swap }, index) => {
          const expected = cpu.projections[index];
          expect(actual).toBeCloseTo(expected?.actual ?? NaN, 3);
          expect([repair === undefined, swap === undefined]).toEqual([expected?.repair === undefined, expected?.swap === undefined]);
          if (repair !== undefined) {
            expect(repair.errorBefore).toBeCloseTo(expected?.repair?.errorBefore ?? NaN, 2);
            expect(repair.errorAfter).toBeCloseTo(expected?.repair?.errorAfter ?? NaN, 2);
          }
          if (swap !== undefined) expect(swap.errorAfter).toBeCloseTo(expected?.swap?.errorAfter ?? NaN, 2);
        });
      }),
    EMULATED_TIMEOUT_MS,
  );
});

test(
  'f16 products change decisions little on a GPU, and are refused by name elsewhere',
  () =>
    withTemporaryFolder(async (folder) => {
      const { model, calibration } = await writeTinyInputs(folder, 8);
      const wide = await pruneTiny(model, calibration, join(folder, 'f32'), ['--backend', 'cpu']);
      const narrow = await pruneTiny(model, calibration, join(folder, 'f16'), ['--backend', 'cuda', '--compute', 'f16']);
      expect([wide.config.compute, narrow.config.compute]).toEqual(['f32', 'f16']);
      narrow.projections.forEach(({ bestQuality }, index) => expect(bestQuality).toBeCloseTo(wide.projections[index]?.bestQuality ?? 0, 1));

      const files = ['--model', model, '--calibration', calibration, '--out', join(folder, 'refused')];
      const refused = await runCommand(['prune', ...files, '--sparsity', '0.5', '--backend', 'cpu', '--compute', 'f16', '--quiet']);
      expect(refused.exitCode).toBe(1);
      expect(refused.stderr).toMatch(/cannot compute in f16: only GPUs multiply float16 values\. Use --compute f32\./);
    }),
  EMULATED_TIMEOUT_MS,
);

test('bf16 products change decisions little, or are refused by name', () =>
  withTemporaryFolder(async (folder) => {
    const args = ['eval', '--model', modelPath('books-qwen2'), '--data', await textIn(folder)];
    const options = ['--seq-len', '128', '--samples', '16', '--nodes', '1', '--backend', 'cpu', '--json', '--quiet'];
    const perplexityWith = async (compute: string) => runCommand([...args, ...options, '--compute', compute]);
    const narrow = await perplexityWith('bf16');
    if (narrow.exitCode !== 0) {
      expect(narrow.stderr).toMatch(/cannot compute in bf16: this processor has no bfloat16 products/);
      return;
    }
    const { perplexity: expected } = JSON.parse((await perplexityWith('f32')).stdout) as { perplexity: number };
    const { perplexity } = JSON.parse(narrow.stdout) as { perplexity: number };
    expect(Math.abs(perplexity / expected - 1)).toBeLessThan(0.01);
    expect(perplexity).not.toBe(expected);
    const wide = await pruneWith('books-qwen2', [...SMALL, '--backend', 'cpu'], folder, 'f32');
    const pruned = await pruneWith('books-qwen2', [...SMALL, '--backend', 'cpu', '--compute', 'bf16'], folder, 'bf16');
    expect([wide.config.compute, pruned.config.compute]).toEqual(['f32', 'bf16']);
    pruned.projections.forEach(({ bestQuality }, index) => expect(bestQuality).toBeCloseTo(wide.projections[index]?.bestQuality ?? 0, 1));
  }));
