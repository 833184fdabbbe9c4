// The serving side of bench/fetch.mjs, in a process of its own: TensorService, a bare grpc-js stream and raw TCP of the same bytes.
import { open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { RpcServer, serveFetch } from '../packages/rpc/dist/index.js';
import { TensorServiceDefinition } from '../proto/dist/secateur/v1/tensor_service.js';
import { BARE_SERVICE, CHUNK_BYTES, TOTAL_BYTES } from './fetch-contract.mjs';

const chunk = Buffer.alloc(CHUNK_BYTES, 0x5a);

// Unlinked while it is open: it ends with this process.
const path = join(tmpdir(), `secateur-bench-${process.pid}`);
const file = await open(path, 'wx+');
await rm(path);
for (let offset = 0; offset < TOTAL_BYTES; offset += CHUNK_BYTES) await file.write(chunk, 0, CHUNK_BYTES, offset);

/** @type {Record<string, import('../packages/rpc/dist/index.js').ByteSource>} */
const sources = {
  memory: { bytes: TOTAL_BYTES, read: async (_offset, length) => chunk.subarray(0, length) },
  file: {
    bytes: TOTAL_BYTES,
    read: async (offset, length, _signal, room) => {
      await file.read(room, 0, length, offset);
      return room;
    },
  },
};
const rpc = new RpcServer({});
rpc.addService(
  TensorServiceDefinition,
  serveFetch(async (resource) => /** @type {import('../packages/rpc/dist/index.js').ByteSource} */ (sources[resource])),
);
const ours = await rpc.listen('127.0.0.1:0');
rpc.setServing(true);

const bare = new Server();
bare.addService(BARE_SERVICE, {
  pull: async (/** @type {import('@grpc/grpc-js').ServerWritableStream<Buffer, Buffer>} */ call) => {
    for (let sent = 0; sent < TOTAL_BYTES; sent += CHUNK_BYTES) {
      if (!call.write(chunk)) await new Promise((resolve) => call.once('drain', resolve));
    }
    call.end();
  },
});
const barePort = await new Promise((resolve, reject) =>
  bare.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => (error === null ? resolve(port) : reject(error))),
);

const tcp = createServer(async (socket) => {
  for (let sent = 0; sent < TOTAL_BYTES; sent += CHUNK_BYTES) {
    if (!socket.write(chunk)) await new Promise((resolve) => socket.once('drain', resolve));
  }
  socket.end();
});
await new Promise((resolve) => tcp.listen(0, '127.0.0.1', () => resolve(undefined)));

process.send?.({ ours: ours.port, bare: barePort, tcp: /** @type {import('node:net').AddressInfo} */ (tcp.address()).port });
process.once('disconnect', () => process.exit(0));
