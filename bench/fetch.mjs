// Fetch, with checksums and digest, against a bare grpc-js stream of the same chunks and against raw TCP; two processes, loopback.
// As on a node, the target is memory that was used before. The peers throw the bytes away.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';
import { connect, fetchResourceInto } from '../packages/rpc/dist/index.js';
import { BARE_SERVICE, TOTAL_BYTES } from './fetch-contract.mjs';
import { markdownTable, median } from './table.mjs';

const ROUNDS = 5;
/** As in packages/rpc/src/channel-options.ts. */
const WINDOW_BYTES = 16 << 20;

/** @param {() => Promise<unknown>} work @returns {Promise<number>} MB/s */
async function speedOf(work) {
  const started = performance.now();
  await work();
  return TOTAL_BYTES / 1e6 / ((performance.now() - started) / 1000);
}

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchFetch() {
  const server = fork(fileURLToPath(new URL('fetch-server.mjs', import.meta.url)));
  try {
    const [ports] = await once(server, 'message');
    const channel = connect(`127.0.0.1:${ports.ours}`, { kind: 'bulk' });
    const bare = new Client(`127.0.0.1:${ports.bare}`, credentials.createInsecure(), {
      'grpc-node.flow_control_window': WINDOW_BYTES,
      'grpc.max_receive_message_length': 16 << 20,
    });
    const target = Buffer.alloc(TOTAL_BYTES, 1);
    const fetch = (/** @type {string} */ resource) =>
      fetchResourceInto(channel, { resource, bytes: TOTAL_BYTES }, target, { timeoutMs: 60_000 });
    const ways = {
      file: () => fetch('file'),
      memory: () => fetch('memory'),
      bare: () =>
        new Promise((resolve, reject) => {
          const { path, requestSerialize, responseDeserialize } = BARE_SERVICE.pull;
          const call = bare.makeServerStreamRequest(path, requestSerialize, responseDeserialize, Buffer.alloc(0));
          call.on('data', () => undefined);
          call.once('end', () => resolve(undefined));
          call.once('error', reject);
        }),
      tcp: () =>
        new Promise((resolve, reject) => {
          const socket = connectTcp(ports.tcp, '127.0.0.1');
          socket.on('data', () => undefined);
          socket.once('end', () => resolve(undefined));
          socket.once('error', reject);
        }),
    };
    /** @type {Record<string, number[]>} */
    const speeds = { file: [], memory: [], bare: [], tcp: [] };
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, way] of Object.entries(ways)) speeds[name]?.push(await speedOf(way));
    }
    channel.close();
    bare.close();
    const speedOfWay = (/** @type {string} */ name) => median(speeds[name] ?? []);
    const fileSpeed = speedOfWay('file');
    const row = (/** @type {string} */ what, /** @type {string} */ name) => [
      what,
      speedOfWay(name).toFixed(0),
      (fileSpeed / speedOfWay(name)).toFixed(2),
    ];
    return {
      fetch: markdownTable(
        ['way', 'MB/s', 'Fetch from a file as a share of it'],
        [row('Fetch from a file', 'file'), row('Fetch from memory', 'memory'), row('bare grpc-js stream', 'bare'), row('raw TCP', 'tcp')],
      ),
    };
  } finally {
    server.disconnect();
  }
}
