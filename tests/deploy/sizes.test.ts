/** Kernel nodes of every overlay have the memory that `secateur plan` asks for a model of the size that docs/operations.md names. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { runCommand } from '../support/command.js';
import { buildManifests, kubectlProblem, kubernetesFolder, type Workload } from '../support/manifests.js';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';

/** The engine may use so much of a container's limit (--memory of secateur node). */
const ENGINE_SHARE = 0.8;
/** More would be taken from others for nothing. */
const MOST_TIMES_PLANNED = 3;
const GIB = 2 ** 30;

interface Size {
  readonly overlay: string;
  readonly model: string;
  readonly nodes: number;
  readonly config: Readonly<Record<string, number>>;
}

const SIZES: readonly Size[] = [
  {
    overlay: 'dev-cpu',
    model: 'Qwen2.5-0.5B',
    nodes: 1,
    config: {
      hidden_size: 896,
      intermediate_size: 4864,
      num_hidden_layers: 24,
      num_attention_heads: 14,
      num_key_value_heads: 2,
      vocab_size: 151936,
    },
  },
  {
    overlay: 'single-gpu',
    model: 'Qwen2.5-7B',
    nodes: 1,
    config: {
      hidden_size: 3584,
      intermediate_size: 18944,
      num_hidden_layers: 28,
      num_attention_heads: 28,
      num_key_value_heads: 4,
      vocab_size: 152064,
    },
  },
  {
    overlay: 'cluster',
    model: 'Qwen2.5-72B',
    nodes: 4,
    config: {
      hidden_size: 8192,
      intermediate_size: 29568,
      num_hidden_layers: 80,
      num_attention_heads: 64,
      num_key_value_heads: 8,
      vocab_size: 152064,
    },
  },
];

interface Plan {
  readonly nodes: readonly { readonly memory: { readonly engineBytes: number; readonly residentBytes: number } }[];
}

/** By the configuration alone, with the published samples: 256 of 2048 tokens. */
function planOf({ nodes, config }: Size): Promise<Plan> {
  return withTemporaryFolder(async (folder) => {
    const model = join(folder, 'model');
    await mkdir(model);
    const rest = {
      model_type: 'qwen2',
      max_position_embeddings: 32768,
      rms_norm_eps: 1e-6,
      torch_dtype: 'bfloat16',
      tie_word_embeddings: false,
    };
    await writeFile(join(model, 'config.json'), JSON.stringify({ ...rest, ...config }));
    const settings = ['--sparsity', '0.7', '--samples', '256', '--seq-len', '2048', '--nodes', String(nodes), '--backend', 'cpu'];
    const { stdout } = await runCommand(['plan', '--model', model, ...settings, '--json']);
    return JSON.parse(stdout) as Plan;
  });
}

function bytesOf(quantity: string): number {
  const [, digits, unit] = /^(\d+)(Mi|Gi)$/.exec(quantity) ?? [];
  return Number(digits) * (unit === 'Gi' ? GIB : GIB / 1024);
}

(kubectlProblem === undefined ? test : test.skip).each(SIZES)('$overlay has the memory for $model', async (size) => {
  const objects = await buildManifests(join(kubernetesFolder, 'overlays', size.overlay));
  const workload = objects.find(({ kind, metadata }) => kind === 'StatefulSet' && metadata.name === 'kernel-node') as Workload;
  const { requests, limits } = workload.spec.template.spec.containers[0]!.resources;
  const { nodes } = await planOf(size);
  expect(nodes).toHaveLength(size.nodes);
  for (const { memory } of nodes) {
    expect(bytesOf(requests['memory']!)).toBeGreaterThanOrEqual(memory.residentBytes);
    expect(bytesOf(requests['memory']!)).toBeLessThan(MOST_TIMES_PLANNED * memory.residentBytes);
    expect(ENGINE_SHARE * bytesOf(limits['memory']!)).toBeGreaterThanOrEqual(memory.engineBytes);
  }
  const page = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
  const planned = (nodes[0]!.memory.residentBytes / GIB).toFixed(0);
  expect(page).toMatch(new RegExp(`\`${size.overlay}\`[^\n]*${size.model}[^\n]*\\b${planned} GiB`));
});
