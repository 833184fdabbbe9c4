// The serving side of bench/fetch.mjs, in a process of its own: TensorService as the orchestrator serves a checkpoint, a bare grpc-js stream and raw
// TCP of as many bytes.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { openCheckpoint, scanTensors } from '../packages/checkpoint/dist/index.js';
import { RpcServer, serveFetch } from '../packages/rpc/dist/index.js';
import { TensorServiceDefinition } from '../proto/dist/secateur/v1/tensor_service.js';
import { BARE_SERVICE, CHUNK_BYTES, TENSORS, TOTAL_BYTES } from './fetch-contract.mjs';

const chunk = Buffer.alloc(CHUNK_BYTES, 0x3a);

/** @param {string} folder */
async function writeCheckpoint(folder) {
  /** @type {Record<string, object>} */
  const header = {};
  let offset = 0;
  for (const { name, shape, bytes } of TENSORS) {
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeUInt32LE(json.byteLength);
  await writeFile(join(folder, 'config.json'), '{}');
  await writeFile(join(folder, 'model.safetensors'), [length, json, Buffer.alloc(TOTAL_BYTES, chunk)]);
}

const folder = await mkdtemp(join(tmpdir(), 'secateur-bench-'));
await writeCheckpoint(folder);
const checkpoint = await openCheckpoint(folder);
// It is open: its files end with this process.
await rm(folder, { recursive: true });
const scanned = await scanTensors(checkpoint, checkpoint.tensors.keys());
const rpc = new RpcServer({});
rpc.addService(
  TensorServiceDefinition,
  serveFetch(async (name) => ({
    bytes: checkpoint.tensor(name).bytes,
    checksums: scanned.get(name)?.checksums,
    read: async (offset, _length, signal, room) => {
      await checkpoint.readTensorInto(name, room, { offset, signal });
      return room;
    },
  })),
);
const ours = await rpc.listen('127.0.0.1:0');
rpc.setServing(true);

/** @param {(part: Buffer) => boolean} write @param {import('node:events').EventEmitter} stream */
async function writeAll(write, stream) {
  for (let sent = 0; sent < TOTAL_BYTES; sent += CHUNK_BYTES) {
    const part = chunk.subarray(0, Math.min(CHUNK_BYTES, TOTAL_BYTES - sent));
    if (!write(part)) await new Promise((resolve) => stream.once('drain', () => resolve(undefined)));
  }
}

const bare = new Server();
bare.addService(BARE_SERVICE, {
  pull: async (/** @type {import('@grpc/grpc-js').ServerWritableStream<Buffer, Buffer>} */ call) => {
    await writeAll((part) => call.write(part), call);
    call.end();
  },
});
const barePort = await new Promise((resolve, reject) =>
  bare.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => (error === null ? resolve(port) : reject(error))),
);

const tcp = createServer(async (socket) => {
  await writeAll((part) => socket.write(part), socket);
  socket.end();
});
await new Promise((resolve) => tcp.listen(0, '127.0.0.1', () => resolve(undefined)));

const digests = Object.fromEntries([...scanned].map(([name, { digest }]) => [name, digest]));
process.send?.({ digests, ours: ours.port, bare: barePort, tcp: /** @type {import('node:net').AddressInfo} */ (tcp.address()).port });
process.once('disconnect', () => process.exit(0));
