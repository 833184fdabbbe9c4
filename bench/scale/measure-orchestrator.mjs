// What the orchestrator's threads take for a byte, measured with the code that it runs.
import { applyMask } from '../../packages/checkpoint/dist/index.js';
import { CHUNK_BYTES, loadHasher, reduceStatistics } from '../../packages/core/dist/index.js';
import { moveWithChecksum } from '../../native/cuda/dist/index.js';
import { connect, fetchResourceInto, Resources, RpcServer, serveFetch } from '../../packages/rpc/dist/index.js';
import { InputSite } from '../../proto/dist/secateur/v1/statistics.js';
import { TensorServiceDefinition } from '../../proto/dist/secateur/v1/tensor_service.js';
import { median } from '../table.mjs';
import { statisticsBytes } from './fake-node.mjs';

const ROUNDS = 3;
const SHAPE = { rows: 1024, columns: 8192, elementBytes: 2 };
const SERVED_BYTES = 128 << 20;
const GROUPS = 16;
const GROUP_SAMPLES = 8;

/** Processor seconds, so that what else runs on the machine counts less. @param {() => unknown} work */
async function processorSecondsOf(work) {
  const seconds = [];
  // The first round warms up.
  for (let round = 0; round <= ROUNDS; round++) {
    const before = process.cpuUsage();
    await work();
    const { user, system } = process.cpuUsage(before);
    if (round > 0) seconds.push((user + system) / 1e6);
  }
  return median(seconds);
}

/** For a byte of weights, with random bits of which 7 in 10 are set. */
async function measureMasking() {
  const { rows, columns, elementBytes } = SHAPE;
  const bytes = Buffer.alloc(rows * columns * elementBytes, 1);
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const mask = Uint8Array.from({ length: (rows * columns) / 8 }, () =>
    Array.from({ length: 8 }, (_, bit) => (random() < 0.7 ? 1 << bit : 0)).reduce((sum, bit) => sum + bit, 0),
  );
  const hasher = await loadHasher();
  const seconds = await processorSecondsOf(async () => {
    hasher.digest(bytes);
    await applyMask('weight', bytes, SHAPE, mask);
    hasher.digest(bytes);
  });
  return seconds / bytes.byteLength;
}

/** For a byte of statistics. */
async function measureReduction() {
  const { columns } = SHAPE;
  const sizes = statisticsBytes(columns, GROUP_SAMPLES);
  const ofGroup = () => [
    { site: InputSite.ATTENTION_INPUT, sumsOfSquares: Buffer.alloc(sizes.sums), qualityInputs: Buffer.alloc(sizes.inputs) },
  ];
  const byGroup = new Map(Array.from({ length: GROUPS }, (_, group) => [group, ofGroup()]));
  const seconds = await processorSecondsOf(() => reduceStatistics(byGroup, 0));
  return seconds / (GROUPS * (sizes.sums + sizes.inputs));
}

/** For a byte on the wire at one end: both ends run in this process, and each is taken for half. */
async function measureServing() {
  const resources = new Resources();
  const content = Buffer.alloc(SERVED_BYTES, 1);
  const hasher = await loadHasher();
  const checksums = Buffer.concat(
    Array.from({ length: SERVED_BYTES / CHUNK_BYTES }, (_, chunk) =>
      hasher.checksum(content.subarray(chunk * CHUNK_BYTES).subarray(0, CHUNK_BYTES)),
    ),
  );
  // As tensors of a checkpoint are served: their checksums are known.
  resources.publish('bytes', {
    bytes: SERVED_BYTES,
    checksums,
    read: (offset, length) => Promise.resolve(content.subarray(offset, offset + length)),
  });
  const server = new RpcServer({});
  server.addService(
    TensorServiceDefinition,
    serveFetch((name) => resources.find(name)),
  );
  const { port } = await server.listen('127.0.0.1:0');
  server.setServing(true);
  const channel = connect(`127.0.0.1:${port}`, { kind: 'bulk' });
  try {
    const target = Buffer.alloc(SERVED_BYTES);
    const descriptor = { resource: 'bytes', bytes: SERVED_BYTES };
    const seconds = await processorSecondsOf(() => fetchResourceInto(channel, descriptor, target, { timeoutMs: 60_000, moveWithChecksum }));
    return seconds / 2 / SERVED_BYTES;
  } finally {
    channel.close();
    await server.shutdown({ graceMs: 1000 });
  }
}

/** @returns {Promise<Pick<import('./cost-model.mjs').OrchestratorSpeed, 'sendSeconds' | 'receiveSeconds' | 'reduceSeconds' | 'maskSeconds'>>} */
export async function measureOrchestrator() {
  const serving = await measureServing();
  return { sendSeconds: serving, receiveSeconds: serving, reduceSeconds: await measureReduction(), maskSeconds: await measureMasking() };
}
