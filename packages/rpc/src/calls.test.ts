import { Client, credentials, Metadata, status as StatusCode } from '@grpc/grpc-js';
import { describe, expect, test } from '@jest/globals';
import { startTestServer, TestDefinition } from '../test/support.js';
import { connect, RpcServer } from './index.js';

describe('calls', () => {
  test('carry requests and answers, with bytes untouched', async () => {
    await using server = await startTestServer({
      ask: ({ resource, offset }, { method }) => Promise.resolve({ offset, data: Buffer.from(`${method} ${resource}`) }),
    });
    const client = server.connect().client(TestDefinition);
    const { offset, data } = await client.ask({ resource: 'α', offset: 2 ** 40 }, { timeoutMs: 5_000 });
    expect(offset).toBe(2 ** 40);
    expect(Buffer.from(data).toString()).toBe('secateur.test.TestService/Ask α');
  });

  test('stream answers in order and end with the handler', async () => {
    await using server = await startTestServer();
    const offsets: number[] = [];
    for await (const { offset } of server.connect().client(TestDefinition).list({ offset: 500 }, { timeoutMs: 5_000 }))
      offsets.push(offset);
    expect(offsets).toEqual([...Array(500).keys()]);
  });

  test('take messages above the default limit of gRPC and refuse those above 16 MiB', async () => {
    await using server = await startTestServer({ ask: ({ offset }) => Promise.resolve({ data: Buffer.alloc(offset) }) });
    const client = server.connect().client(TestDefinition);
    const { data } = await client.ask({ offset: 12 << 20 }, { timeoutMs: 5_000 });
    expect(data.byteLength).toBe(12 << 20);
    await expect(client.ask({ offset: 17 << 20 }, { timeoutMs: 5_000 })).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
  });

  test('may be limited in their size by a server', async () => {
    const server = new RpcServer({ maximumRequestBytes: 1024 });
    server.addService(TestDefinition, {
      ask: () => Promise.resolve({}),
      list: async function* () {
        yield {};
      },
    });
    const { host, port } = await server.listen('127.0.0.1:0');
    const channel = connect(`${host}:${port}`, { kind: 'control' });
    const ask = (bytes: number): Promise<unknown> =>
      channel.client(TestDefinition).ask({ resource: 'a'.repeat(bytes) }, { timeoutMs: 5_000 });
    await ask(1000);
    await expect(ask(2000)).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    channel.close();
    await server.shutdown({ graceMs: 100 });
  });

  test('fail with UNAVAILABLE when nothing listens, and name the address', async () => {
    const server = await startTestServer();
    await server.server.shutdown({ graceMs: 100 });
    await using closed = server;
    const client = closed.connect().client(TestDefinition);
    await expect(client.ask({}, { timeoutMs: 5_000 })).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
      message: expect.stringContaining(server.address),
    });
  });

  test('cannot be made on a closed channel', async () => {
    await using server = await startTestServer();
    const channel = server.connect();
    channel.close();
    await expect(channel.client(TestDefinition).ask({}, { timeoutMs: 1_000 })).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
  });

  test.each(['Ask', 'List'])('whose bytes are no message are refused as such by %s', async (method) => {
    await using server = await startTestServer();
    const client = new Client(server.address, credentials.createInsecure());
    const same = (bytes: Buffer): Buffer => bytes;
    const path = `/${TestDefinition.fullName}/${method}`;
    const call = client.makeServerStreamRequest(path, same, same, Buffer.from([0x0a, 0xff]), new Metadata(), {
      deadline: Date.now() + 5_000,
    });
    const error = await new Promise((resolve) => call.on('error', resolve).resume());
    client.close();
    expect(error).toMatchObject({ code: StatusCode.INVALID_ARGUMENT, details: expect.stringMatching(/no message of this method/) });
  });
});
