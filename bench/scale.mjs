// What clusters of many nodes would take for a large model: the orchestrator's own layer loop and scheduler on nodes that compute nothing, in virtual time.
import { checkModel } from './scale/check-model.mjs';
import { h200Node, LINK_BYTES_PER_SECOND } from './scale/cost-model.mjs';
import { measureOrchestrator } from './scale/measure-orchestrator.mjs';
import { simulateLongJob } from './scale/simulate-job.mjs';
import { markdownTable } from './table.mjs';

const QWEN_72B = {
  model_type: 'qwen2',
  hidden_size: 8192,
  intermediate_size: 29568,
  num_hidden_layers: 80,
  num_attention_heads: 64,
  num_key_value_heads: 8,
  vocab_size: 152064,
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
};
const SEQUENCE_LENGTH = 2048;
const NODES = [1, 2, 4, 8, 16, 32, 64];
/** From here on a job counts as one that its nodes' work limits. */
const GOOD_EFFICIENCY = 0.8;
/** A disk of the kind that servers have; not measured. */
const DISK = { readBytesPerSecond: 2e9, writeBytesPerSecond: 1e9 };
const CALL_SECONDS = 0.5e-3;
/** A volume that nodes share, read and hashed by one thread of each; not measured. */
const VOLUME_BYTES_PER_SECOND = 1e9;

/** What node time goes to, in words. @type {Record<string, string>} */
const NAMES = {
  compute: 'compute',
  masks: 'masks',
  statistics: 'statistics on the wire',
  checkpoint: 'checkpoint bytes',
  reduction: 'statistics reduction',
  write: "masking on the orchestrator's masking threads",
  disk: 'disk write',
  groups: 'too few groups',
  projections: 'allocation imbalance',
  calls: 'calls',
};

/** @param {number} seconds */
function describeTime(seconds) {
  return seconds < 120
    ? `${seconds.toFixed(0)} s`
    : seconds < 7200
      ? `${(seconds / 60).toFixed(1)} min`
      : `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {Record<string, number>} bytes @param {string[]} [kinds] */
function gigabytes(bytes, kinds = Object.keys(bytes)) {
  return kinds.reduce((sum, kind) => sum + (bytes[kind] ?? 0), 0) / 1e9;
}

/** @param {Record<string, number>} nodeSeconds @param {number} efficiency */
function describeLimit(nodeSeconds, efficiency) {
  const all = Object.values(nodeSeconds).reduce((sum, seconds) => sum + seconds, 0);
  const [use, seconds] = Object.entries(nodeSeconds)
    .filter(([name]) => (efficiency < GOOD_EFFICIENCY ? name !== 'compute' : true))
    .reduce((most, entry) => (entry[1] > most[1] ? entry : most));
  return `${NAMES[use]} ${((100 * seconds) / all).toFixed(0)} %`;
}

/** @param {number} samples @param {import('./scale/cost-model.mjs').NodeSpeed} node @param {import('./scale/cost-model.mjs').OrchestratorSpeed} orchestrator */
async function simulateClusters(samples, node, orchestrator) {
  const rows = [];
  let alone = Number.NaN;
  for (const nodes of NODES) {
    const job = { config: QWEN_72B, samples, sequenceLength: SEQUENCE_LENGTH, nodes, node, orchestrator };
    const result = await simulateLongJob(job);
    const { total } = result.seconds;
    if (nodes === 1) alone = total;
    const efficiency = alone / total / nodes;
    const compute = result.nodeSeconds.compute / total / nodes;
    rows.push([
      `${samples} samples`,
      nodes,
      describeTime(total),
      `${(100 * efficiency).toFixed(0)} %`,
      `${(100 * compute).toFixed(0)} %`,
      describeLimit(result.nodeSeconds, efficiency),
      `${((100 * result.orchestrator.thread) / total).toFixed(0)} %`,
      `${((100 * result.orchestrator.out) / total / orchestrator.linkBytesPerSecond).toFixed(0)} %`,
      gigabytes(result.served).toFixed(0),
      ((gigabytes(result.served) + gigabytes(result.passedOn)) / nodes).toFixed(1),
      ((gigabytes(result.received) + gigabytes(result.passedOn)) / nodes).toFixed(1),
    ]);
  }
  return rows;
}

const HEAD = [
  'calibration',
  'nodes',
  'job (simulated)',
  'efficiency against one node',
  'nodes compute',
  'limited by (share of node time)',
  "orchestrator's thread is busy",
  "orchestrator's link is busy",
  'orchestrator sends GB',
  'a node receives GB (mean)',
  'a node sends GB (mean)',
];

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchScale() {
  const measured = await measureOrchestrator();
  const orchestrator = { ...measured, ...DISK, linkBytesPerSecond: LINK_BYTES_PER_SECOND, callSeconds: CALL_SECONDS };
  const { table, node } = await checkModel(orchestrator);
  const gpu = h200Node(1 / measured.sendSeconds);
  const cpu = { ...node, linkBytesPerSecond: LINK_BYTES_PER_SECOND };
  const megabytes = (/** @type {number} */ secondsForByte) => (1 / secondsForByte / 1e6).toFixed(0);
  const speeds = markdownTable(
    ['speed', 'value', 'which is'],
    [
      ['H200 node: products of a dense block', `${(gpu.productsPerSecond / 1e12).toFixed(0)} TFLOP/s`, 'measured on a GPU'],
      ['H200 node: products of a pruned block', `${(gpu.prunedProductsPerSecond / 1e12).toFixed(0)} TFLOP/s`, 'measured on a GPU'],
      ['H200 node: sorting weights', `${(gpu.sortedWeightsPerSecond / 1e9).toFixed(0)} G/s`, 'measured on a GPU'],
      ['H200 node: row search, weights x samples', `${(gpu.weightSamplesPerSecond / 1e9).toFixed(0)} G/s`, 'measured on a GPU'],
      ['node of this machine: products of a dense block', `${(cpu.productsPerSecond / 1e9).toFixed(0)} GFLOP/s`, 'measured: one job'],
      [
        'node of this machine: products of a block at 70 %',
        `${(cpu.prunedProductsPerSecond / 1e9).toFixed(0)} GFLOP/s`,
        'measured: one job',
      ],
      ['node of this machine: sorting weights', `${(cpu.sortedWeightsPerSecond / 1e9).toFixed(2)} G/s`, 'measured: one job'],
      [
        'node of this machine: row search, weights x samples',
        `${(cpu.weightSamplesPerSecond / 1e9).toFixed(0)} G/s`,
        'measured: the table of curves and search',
      ],
      ["orchestrator's thread: serving", `${megabytes(measured.sendSeconds)} MB/s`, 'measured: half of both ends'],
      ["orchestrator's thread: reducing statistics", `${megabytes(measured.reduceSeconds)} MB/s`, 'measured'],
      ['a masking thread of the orchestrator, of four', `${megabytes(measured.maskSeconds)} MB/s`, 'measured'],
      ['network of each machine', '25 Gbit/s', 'chosen'],
      ["orchestrator's disk: reads, writes", '2, 1 GB/s', 'chosen'],
    ],
  );
  const rows = [...(await simulateClusters(128, gpu, orchestrator)), ...(await simulateClusters(256, gpu, orchestrator))];
  return {
    'scale-check': table,
    'scale-speeds': speeds,
    'scale-gpu': markdownTable(HEAD, rows),
    'scale-volume': markdownTable(
      HEAD,
      await simulateClusters(256, { ...gpu, volumeBytesPerSecond: VOLUME_BYTES_PER_SECOND }, orchestrator),
    ),
    'scale-cpu': markdownTable(HEAD, await simulateClusters(256, cpu, orchestrator)),
  };
}
