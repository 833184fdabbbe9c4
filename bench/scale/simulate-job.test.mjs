import { describe, expect, test } from '@jest/globals';
import { simulateJob, simulateLongJob } from './simulate-job.mjs';

const config = {
  model_type: 'qwen2',
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 128,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
};
const node = {
  productsPerSecond: 1e9,
  prunedProductsPerSecond: 2e9,
  sortedWeightsPerSecond: 1e8,
  weightSamplesPerSecond: 1e8,
  loadedBytesPerSecond: 1e8,
  maskedBytesPerSecond: 1e8,
  linkBytesPerSecond: 1e8,
  pulledBytesPerSecond: 1e8,
};
const orchestrator = {
  linkBytesPerSecond: 1e8,
  sendSeconds: 1e-9,
  receiveSeconds: 1e-9,
  reduceSeconds: 1e-9,
  maskSeconds: 1e-9,
  readBytesPerSecond: 1e9,
  writeBytesPerSecond: 1e9,
  callSeconds: 1e-4,
};
const job = { config, samples: 56, sequenceLength: 128, node, orchestrator };
const GROUPS = 7;
const PROJECTIONS = 7;

describe('simulateJob', () => {
  test.each([1, 3])('visits every group and projection of every block once, on %i nodes', async (nodes) => {
    const { visits } = await simulateJob({ ...job, nodes });
    const partsOf = (/** @type {string} */ step, /** @type {number} */ layer) =>
      visits.flat().flatMap((visit) => (visit.step === step && visit.layer === `block/${layer}` ? [visit.part] : []));
    const groups = Array.from({ length: GROUPS }, (_, group) => group);
    for (let layer = 0; layer < config.num_hidden_layers; layer++) {
      expect(partsOf('collect', layer).sort()).toEqual(groups);
      // Nobody reads what the last block gives.
      expect(partsOf('propagate', layer).sort()).toEqual(layer === config.num_hidden_layers - 1 ? [] : groups);
      const projections = partsOf('allocate', layer);
      expect(projections).toHaveLength(PROJECTIONS);
      expect(new Set(projections).size).toBe(PROJECTIONS);
    }
    expect(visits.every((ofNode) => ofNode.length > 0)).toBe(true);
  });

  test('computes as much as the planner counts, and accounts for all time of all nodes', async () => {
    const { flops, plannedFlops, nodeSeconds, seconds } = await simulateJob({ ...job, nodes: 3 });
    /** @type {Record<string, number>} */
    const computed = flops;
    for (const [step, planned] of Object.entries(plannedFlops)) expect(computed[step]).toBeCloseTo(planned, 0);
    const accounted = Object.values(nodeSeconds).reduce((sum, ofUse) => sum + ofUse, 0);
    expect(accounted).toBeCloseTo(3 * seconds.total, 6);
  });

  test('sends the checkpoint and masks once, and nodes pass them on; none of the checkpoint where they read it themselves', async () => {
    const [one, three] = await Promise.all([simulateJob({ ...job, nodes: 1 }), simulateJob({ ...job, nodes: 3 })]);
    const { checkpoint = 0, masks = 0 } = one.served;
    expect(checkpoint).toBeGreaterThan(0);
    expect(masks).toBeGreaterThan(0);
    expect(three.served.checkpoint).toBe(checkpoint);
    expect(three.passedOn.checkpoint).toBe(2 * checkpoint);
    expect(three.served.masks).toBe(masks);
    expect(three.passedOn.masks).toBe(2 * masks);
    const sharing = await simulateJob({ ...job, nodes: 3, node: { ...node, volumeBytesPerSecond: 1e8 } });
    expect(sharing.served.checkpoint).toBeUndefined();
    expect(sharing.passedOn).toEqual({ masks: 2 * masks });
  });

  test('takes as long as the products on one node, and a third of that on three, where nothing else takes time', async () => {
    const free = { ...orchestrator, sendSeconds: 0, receiveSeconds: 0, reduceSeconds: 0, maskSeconds: 0, callSeconds: 0 };
    const fast = { linkBytesPerSecond: 1e15, readBytesPerSecond: 1e15, writeBytesPerSecond: 1e15 };
    const only = {
      loadedBytesPerSecond: 1e15,
      maskedBytesPerSecond: 1e15,
      sortedWeightsPerSecond: 1e15,
      weightSamplesPerSecond: 1e15,
      linkBytesPerSecond: 1e15,
      pulledBytesPerSecond: 1e15,
    };
    const ideal = { ...job, samples: 72, node: { ...node, ...only }, orchestrator: { ...free, ...fast } };
    const [one, three] = await Promise.all([simulateJob({ ...ideal, nodes: 1 }), simulateJob({ ...ideal, nodes: 3 })]);
    // Attention comes on top of the products.
    const products = one.flops.collect / 1e9 + one.flops.propagate / 2e9;
    expect(one.seconds.total).toBeGreaterThan(products);
    expect(one.seconds.total / three.seconds.total).toBeCloseTo(3, 3);
  });

  test('stands for layers that are alike with one in the middle', async () => {
    const long = { ...job, nodes: 3, config: { ...config, num_hidden_layers: 9 } };
    const [all, some] = await Promise.all([simulateJob(long), simulateLongJob(long)]);
    expect(some.seconds.total / all.seconds.total).toBeCloseTo(1, 2);
    expect(some.served.checkpoint).toBe(all.served.checkpoint);
  });
});
