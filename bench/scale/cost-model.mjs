import { projectionsRun } from '../../packages/core/dist/index.js';

/**
 * How fast a node is.
 * @typedef {object} NodeSpeed
 * @property {number} productsPerSecond floating-point operations of a block's products and attention
 * @property {number} prunedProductsPerSecond the same of a pruned block, dropped weights counted too
 * @property {number} sortedWeightsPerSecond weights that are scored and sorted for the search
 * @property {number} weightSamplesPerSecond weights that are searched, times the samples that rows are judged on
 * @property {number} loadedBytesPerSecond bytes of a shard that the engine takes over
 * @property {number} maskedBytesPerSecond bytes of weights that masks are applied to
 * @property {number} linkBytesPerSecond of its network, each way
 * @property {number} pulledBytesPerSecond what its process can receive
 * @property {number} [volumeBytesPerSecond] at which it reads checkpoints itself; they are pulled from the orchestrator when absent
 */

/**
 * How fast the orchestrator is. It does all but disk and network on one thread.
 * @typedef {object} OrchestratorSpeed
 * @property {number} linkBytesPerSecond of its network, each way
 * @property {number} sendSeconds of its thread for a byte that it serves
 * @property {number} receiveSeconds of its thread for a byte of an answer
 * @property {number} reduceSeconds of its thread for a byte of statistics
 * @property {number} maskSeconds of a masking thread for a byte of weights that is masked and digested
 * @property {number} readBytesPerSecond of its disk
 * @property {number} writeBytesPerSecond of its disk
 * @property {number} callSeconds latency of a call
 */

/** 25 Gbit/s. */
export const LINK_BYTES_PER_SECOND = 25e9 / 8;

/**
 * Measured on one H200 on a block of Qwen2.5-7B's shape, with `--compute bf16` and 128 samples (docs/performance.md, On a GPU): attention, and all else that
 * a pass or a search does, is counted in its time. The network is chosen.
 * @param {number} pulledBytesPerSecond @returns {NodeSpeed}
 */
export function h200Node(pulledBytesPerSecond) {
  return {
    productsPerSecond: 460e12,
    // Nothing is multiplied sparse there; what is collected besides is not part of it.
    prunedProductsPerSecond: 540e12,
    sortedWeightsPerSecond: 32e9,
    weightSamplesPerSecond: 600e9,
    loadedBytesPerSecond: 20e9,
    maskedBytesPerSecond: 100e9,
    linkBytesPerSecond: LINK_BYTES_PER_SECOND,
    pulledBytesPerSecond,
  };
}

/** @param {import('@secateur/proto/model').Architecture} architecture @param {number} tokens @param {number} sequenceLength */
function attentionFlops({ attentionHeads, headDimension }, tokens, sequenceLength) {
  // Scores and weighted values, 2 each, of the half of the keys that a token sees.
  return 2 * tokens * sequenceLength * attentionHeads * headDimension;
}

/** @param {readonly import('../../packages/core/dist/index.js').PlannedProjection[]} projections @param {number} tokens */
function productFlops(projections, tokens) {
  return projections.reduce((sum, { rows, columns }) => sum + 2 * rows * columns * tokens, 0);
}

/**
 * Operations of a pass through a block for one group, as count-flops.ts counts those of whole jobs, and attention on top. `sites`: a pass that ends at the
 * last of these; undefined for a whole one.
 * @param {import('@secateur/proto/model').Architecture} architecture
 * @param {import('../../packages/core/dist/index.js').PlannedBlock} block
 * @param {{ samples: number, sequenceLength: number }} group
 * @param {readonly import('@secateur/proto/statistics').InputSite[]} [sites]
 */
export function passFlops(architecture, block, { samples, sequenceLength }, sites) {
  const projections = sites === undefined ? block.projections : projectionsRun(block, { collects: sites });
  const tokens = samples * sequenceLength;
  return { products: productFlops(projections, tokens), attention: attentionFlops(architecture, tokens, sequenceLength) };
}

/** @param {NodeSpeed} speed @param {{ rows: number, columns: number }} projection @param {number} samples */
export function allocationSeconds({ sortedWeightsPerSecond, weightSamplesPerSecond }, { rows, columns }, samples) {
  return rows * columns * (1 / sortedWeightsPerSecond + samples / weightSamplesPerSecond);
}
