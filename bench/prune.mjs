// A whole `secateur prune`: wall time against the sum of its steps, peak memory of its processes, what tracing costs; and start-up of the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { markdownTable, median } from './table.mjs';

const command = join(workspaceRoot, 'packages/cli/bin/secateur.js');
const ROUNDS = 3;
const HELP_ROUNDS = 9;

/** Peak resident MiB of the processes below one, by what they run. @param {number} pid @param {Map<string, number>} peaks */
function samplePeaks(pid, peaks) {
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${entry}/status`, 'utf8');
      if (Number(entry) !== pid && !status.includes(`\nPPid:\t${pid}\n`)) continue;
      const args = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
      const role = args[2] === 'serve' ? 'orchestrator' : args[2] === 'node' ? 'kernel node' : 'command';
      const peak = Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
      peaks.set(role, Math.max(peaks.get(role) ?? 0, peak));
    } catch {
      // The process ended while it was looked at.
    }
  }
}

/**
 * @param {readonly string[]} args
 * @returns {Promise<{ seconds: number, output: string, peaks: Map<string, number> }>}
 */
async function run(args) {
  const started = performance.now();
  const child = spawn(process.execPath, [command, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  /** @type {Map<string, number>} */
  const peaks = new Map();
  const sampler = setInterval(() => samplePeaks(child.pid ?? 0, peaks), 50);
  const [code] = await once(child, 'close');
  clearInterval(sampler);
  if (code !== 0) throw new Error(`secateur ${args.join(' ')} failed`);
  return { seconds: (performance.now() - started) / 1000, output, peaks };
}

/** A Qwen2 checkpoint with random weights and matching ids. @param {string} folder */
async function writeSyntheticModel(folder) {
  const [hidden, intermediate, layers, heads, keyHeads, vocabulary] = [1024, 2816, 4, 16, 4, 4096];
  /** @type {[string, number[]][]} */
  const tensors = [['model.embed_tokens.weight', [vocabulary, hidden]]];
  for (let layer = 0; layer < layers; layer++) {
    const key = (hidden / heads) * keyHeads;
    const prefix = `model.layers.${layer}`;
    tensors.push([`${prefix}.input_layernorm.weight`, [hidden]], [`${prefix}.post_attention_layernorm.weight`, [hidden]]);
    for (const [name, rows] of /** @type {[string, number][]} */ ([
      ['q_proj', hidden],
      ['k_proj', key],
      ['v_proj', key],
    ])) {
      tensors.push([`${prefix}.self_attn.${name}.weight`, [rows, hidden]], [`${prefix}.self_attn.${name}.bias`, [rows]]);
    }
    tensors.push([`${prefix}.self_attn.o_proj.weight`, [hidden, hidden]], [`${prefix}.mlp.gate_proj.weight`, [intermediate, hidden]]);
    tensors.push([`${prefix}.mlp.up_proj.weight`, [intermediate, hidden]], [`${prefix}.mlp.down_proj.weight`, [hidden, intermediate]]);
  }
  tensors.push(['model.norm.weight', [hidden]]);
  /** @type {Record<string, object>} */
  const header = {};
  let offset = 0;
  for (const [name, shape] of tensors) {
    const end = offset + 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, end] };
    offset = end;
  }
  let state = 1;
  const random = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5) * 0.1;
  const data = new Uint16Array(offset / 2);
  const bits = new DataView(new ArrayBuffer(4));
  for (let index = 0; index < data.length; index++) {
    bits.setFloat32(0, random());
    data[index] = bits.getUint16(0);
  }
  const writeTensors = (/** @type {object} */ content, /** @type {Buffer} */ bytes) => {
    const json = Buffer.from(JSON.stringify(content));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.byteLength));
    return Buffer.concat([length, json, bytes]);
  };
  await writeFile(join(folder, 'model.safetensors'), writeTensors(header, Buffer.from(data.buffer)));
  const ids = Int32Array.from({ length: 16 * 512 }, (_, index) => (index * 97) % vocabulary);
  const idHeader = { input_ids: { dtype: 'I32', shape: [16, 512], data_offsets: [0, ids.byteLength] } };
  await writeFile(join(folder, 'ids.safetensors'), writeTensors(idHeader, Buffer.from(ids.buffer)));
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({
      model_type: 'qwen2',
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: keyHeads,
      vocab_size: vocabulary,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-6,
      tie_word_embeddings: true,
    }),
  );
}

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchPrune() {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-bench-'));
  try {
    await writeSyntheticModel(folder);
    const models = [
      [
        'books-qwen2, 128 x 256 tokens',
        join(workspaceRoot, 'examples/models/books-qwen2'),
        join(workspaceRoot, 'tests/fixtures/calibration/books-qwen2-calibration.safetensors'),
      ],
      ['hidden 1024, 4 layers, 16 x 512 tokens', folder, join(folder, 'ids.safetensors')],
    ];
    const rows = [];
    const memory = [];
    let outputs = 0;
    const prune = (/** @type {string} */ model, /** @type {string} */ data, /** @type {string[]} */ extra) =>
      run([
        'prune',
        '--model',
        model,
        '--calibration',
        data,
        '--sparsity',
        '0.7',
        '--out',
        join(folder, `out-${outputs++}`),
        '--json',
        '--quiet',
        ...extra,
      ]);
    for (const [name = '', model = '', data = ''] of models) {
      const { seconds, output, peaks } = await prune(model, data, []);
      const { timings, nodes } = JSON.parse(output);
      const steps = timings.seconds;
      const { total, ...parts } = steps;
      const sum = Object.values(parts).reduce((left, right) => left + right, 0);
      const cells = ['plan', 'collect', 'allocate', 'write', 'propagate'].map((step) => steps[step].toFixed(2));
      rows.push([name, ...cells, sum.toFixed(2), total.toFixed(2), seconds.toFixed(2)]);
      const mebibytes = (/** @type {number} */ bytes) => (bytes / 2 ** 20).toFixed(0);
      for (const {
        name: node,
        memory: { plannedBytes, peakBytes },
      } of nodes) {
        const others = ['orchestrator', 'command'].map((role) => (peaks.get(role) ?? 0).toFixed(0));
        memory.push([`${name}: ${node}`, mebibytes(plannedBytes), mebibytes(peakBytes), (peakBytes / plannedBytes).toFixed(2), ...others]);
      }
    }
    /** @type {number[]} */
    const ratios = [];
    const [, model = '', data = ''] = models[1] ?? [];
    for (let round = 0; round < ROUNDS; round++) {
      const job = async (/** @type {string[]} */ extra) => JSON.parse((await prune(model, data, extra)).output).timings.seconds.total;
      const without = await job([]);
      ratios.push((await job(['--trace-out', join(folder, 'trace.json')])) / without);
    }
    const help = [];
    const empty = [];
    for (let round = 0; round < HELP_ROUNDS; round++) {
      help.push((await run(['--help'])).seconds);
      const started = performance.now();
      await once(spawn(process.execPath, ['-e', '0']), 'close');
      empty.push((performance.now() - started) / 1000);
    }
    return {
      prune: markdownTable(
        ['job on 2 nodes', 'plan s', 'collect s', 'allocate s', 'write s', 'propagate s', 'sum of steps s', 'job s', 'command s'],
        rows,
      ),
      memory: markdownTable(['job on 2 nodes', 'planned MiB', 'peak MiB', 'peak / planned', 'orchestrator MiB', 'command MiB'], memory),
      overheads: markdownTable(
        ['what', 'value'],
        [
          ['job with a recorded trace / without (median)', median(ratios).toFixed(3)],
          ['`secateur --help` s', median(help).toFixed(3)],
          ['`node -e 0` s', median(empty).toFixed(3)],
        ],
      ),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
