// Fetch, with checksums and digest, against a bare grpc-js stream of the same chunks and against raw TCP; two processes, loopback.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Client, credentials } from '@grpc/grpc-js';
import { connect, fetchResource } from '../packages/rpc/dist/index.js';
import { BARE_SERVICE, TOTAL_BYTES } from './fetch-contract.mjs';
import { markdownTable, median } from './table.mjs';

const ROUNDS = 5;
const WINDOW_BYTES = 8 << 20;

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
    const ways = {
      fetch: () => fetchResource(channel, { resource: 'x', bytes: TOTAL_BYTES }, { timeoutMs: 60_000 }),
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
    const speeds = { fetch: [], bare: [], tcp: [] };
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, way] of Object.entries(ways)) speeds[name]?.push(await speedOf(way));
    }
    channel.close();
    bare.close();
    const fetchSpeed = median(speeds['fetch'] ?? []);
    return {
      fetch: markdownTable(
        ['way', 'MB/s', 'Fetch as a share of it'],
        [
          ['Fetch (checksum per chunk, digest)', fetchSpeed.toFixed(0), ''],
          ['bare grpc-js stream', median(speeds['bare'] ?? []).toFixed(0), (fetchSpeed / median(speeds['bare'] ?? [])).toFixed(2)],
          ['raw TCP', median(speeds['tcp'] ?? []).toFixed(0), (fetchSpeed / median(speeds['tcp'] ?? [])).toFixed(2)],
        ],
      ),
    };
  } finally {
    server.disconnect();
  }
}
