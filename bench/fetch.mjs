// The bytes of a block from a checkpoint's file into a node's engine, by the code that a node and an orchestrator run, against a bare grpc-js stream of
// as many bytes in the same chunks and against raw TCP; two processes, loopback. The peers throw the bytes away.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';
import { openEngine } from '../native/cuda/dist/index.js';
import { connect, Resources } from '../packages/rpc/dist/index.js';
import { OpenSessionRequest } from '../proto/dist/secateur/v1/kernel_service.js';
import { ShardDescriptor } from '../proto/dist/secateur/v1/model.js';
import { KernelSession } from '../services/kernel-node/dist/session/kernel-session.js';
import { SharedVolume } from '../services/kernel-node/dist/session/shared-volume.js';
import { ARCHITECTURE, BARE_SERVICE, TENSORS, TOTAL_BYTES } from './fetch-contract.mjs';
import { markdownTable, median } from './table.mjs';

const ROUNDS = 15;
/** As in packages/rpc/src/channel-options.ts. */
const WINDOW_BYTES = 16 << 20;

/** @param {() => Promise<unknown>} work @returns {Promise<number>} */
async function secondsOf(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

/** @param {number} port @param {Record<string, string>} digests */
function openNode(port, digests) {
  const engine = openEngine({ backend: 'cpu', threads: 2, memoryBudgetBytes: 2 ** 31 });
  const request = OpenSessionRequest.fromPartial({ sessionId: 'bench', tensorEndpoint: `127.0.0.1:${port}` });
  const session = new KernelSession(request, engine.openSession(ARCHITECTURE, { compute: 'f32', hiddenStates: 'f32' }), {
    connectToSource: (endpoint) => connect(endpoint, { kind: 'bulk' }),
    resources: new Resources(),
    volume: new SharedVolume([]),
    onPeerGivenUp: () => undefined,
  });
  const tensors = TENSORS.map((tensor) => ({ ...tensor, digest: digests[tensor.name] ?? '' }));
  const shard = ShardDescriptor.fromPartial({ id: 'block/0', tensors });
  return {
    load: () => session.loadShard(shard, undefined),
    release: () => session.releaseShard(shard.id),
    close: async () => {
      await session.close();
      await engine.close();
    },
  };
}

/** @param {number} port */
function openBare(port) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc-node.flow_control_window': WINDOW_BYTES,
    'grpc.max_receive_message_length': 16 << 20,
  });
  const pull = () =>
    new Promise((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = BARE_SERVICE.pull;
      const call = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, Buffer.alloc(0));
      call.on('data', () => undefined);
      call.once('end', () => resolve(undefined));
      call.once('error', reject);
    });
  return { pull, close: () => client.close() };
}

/** @param {number} port */
function pullTcp(port) {
  return new Promise((resolve, reject) => {
    const socket = connectTcp(port, '127.0.0.1');
    socket.on('data', () => undefined);
    socket.once('end', () => resolve(undefined));
    socket.once('error', reject);
  });
}

/** @param {readonly number[]} shares */
function describeShares(shares) {
  const sorted = [...shares].sort((left, right) => left - right);
  const at = (/** @type {number} */ part) => (sorted[Math.round(part * (sorted.length - 1))] ?? Number.NaN).toFixed(2);
  return `${at(0.5)} (${at(0.25)} … ${at(0.75)})`;
}

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchFetch() {
  const server = fork(fileURLToPath(new URL('fetch-server.mjs', import.meta.url)));
  try {
    const [ports] = await once(server, 'message');
    const node = openNode(ports.ours, ports.digests);
    const bare = openBare(ports.bare);
    /** Seconds of every round. @type {Record<'pulled' | 'loaded' | 'bare' | 'tcp', number[]>} */
    const seconds = { pulled: [], loaded: [], bare: [], tcp: [] };
    const ways = [
      async () => {
        let fetchSeconds = 0;
        seconds.loaded.push(await secondsOf(async () => ({ fetchSeconds } = await node.load())));
        seconds.pulled.push(fetchSeconds);
        await node.release();
      },
      async () => seconds.bare.push(await secondsOf(bare.pull)),
      async () => seconds.tcp.push(await secondsOf(() => pullTcp(ports.tcp))),
    ];
    // The first round warms up. Rounds go forwards and backwards in turn, so that no way is always the one before another.
    for (let round = 0; round <= ROUNDS; round++) {
      for (const way of round % 2 === 0 ? ways : ways.toReversed()) await way();
      if (round === 0) for (const values of Object.values(seconds)) values.length = 0;
    }
    await node.close();
    bare.close();
    const row = (/** @type {string} */ what, /** @type {number[]} */ values) => {
      const shares = values.map((value, round) => (seconds.bare[round] ?? Number.NaN) / value);
      return [what, (TOTAL_BYTES / 1e6 / median(values)).toFixed(0), describeShares(shares)];
    };
    return {
      fetch: markdownTable(
        ['way', 'MB/s', 'share of the bare stream: median of pairs (their middle half)'],
        [
          row("block into a node's memory, verified", seconds.pulled),
          row("block into a node's engine", seconds.loaded),
          row('bare grpc-js stream', seconds.bare),
          row('raw TCP', seconds.tcp),
        ],
      ),
    };
  } finally {
    server.disconnect();
  }
}
