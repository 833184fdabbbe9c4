import { describe, expect, test } from '@jest/globals';
import { Client, credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { aborted, startTestServer, TestDefinition } from '../test/support.js';
import { connect, RpcServer, type ServiceImplementation } from './index.js';

describe('deadlines', () => {
  test('a call without one is refused before its handler runs', async () => {
    let handled = false;
    await using server = await startTestServer({
      ask: () => {
        handled = true;
        return Promise.resolve({});
      },
    });
    const client = new Client(server.address, credentials.createInsecure());
    const identity = (bytes: Buffer): Buffer => bytes;
    const error = await new Promise<ServiceError | null>((resolve) => {
      client.makeUnaryRequest('/secateur.test.TestService/Ask', identity, identity, Buffer.alloc(0), new Metadata(), resolve);
    });
    client.close();
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(error?.details).toContain('secateur.test.TestService/Ask was called without a deadline');
    expect(handled).toBe(false);
  });

  test('the caller gets DEADLINE_EXCEEDED and the handler is told', async () => {
    let deadline: Date | undefined;
    let tell: (reason: unknown) => void = () => undefined;
    const told = new Promise((resolve) => {
      tell = resolve;
    });
    await using server = await startTestServer({
      ask: async (_request, context) => {
        deadline = context.deadline;
        tell(await aborted(context.signal));
        return {};
      },
    });
    const started = Date.now();
    await expect(server.connect().client(TestDefinition).ask({}, { timeoutMs: 200 })).rejects.toMatchObject({
      reason: 'DEADLINE_EXCEEDED',
    });
    expect(deadline?.getTime()).toBeGreaterThan(started);
    expect(deadline?.getTime()).toBeLessThan(started + 1_000);
    // Which of the two depends on whose clock rings first.
    expect(await told).toMatchObject({ reason: expect.stringMatching(/DEADLINE_EXCEEDED|CANCELLED/) });
  });

  test('a call lasts no longer than its service lets it, however late its deadline is', async () => {
    const server = new RpcServer();
    const reasons: unknown[] = [];
    const service: ServiceImplementation<typeof TestDefinition> = {
      ask: () => Promise.resolve({}),
      async *list(_request, { signal }) {
        yield { offset: 1 };
        reasons.push(await aborted(signal));
        throw signal.reason;
      },
    };
    server.addService(TestDefinition, service, 100);
    const { host, port } = await server.listen('127.0.0.1:0');
    const channel = connect(`${host}:${port}`, { kind: 'control' });
    try {
      const seen: number[] = [];
      const read = async (): Promise<void> => {
        for await (const { offset } of channel.client(TestDefinition).list({}, { timeoutMs: 10_000 })) seen.push(offset);
      };
      const ended = {
        reason: 'DEADLINE_EXCEEDED',
        message: 'secateur.test.TestService/List has taken 0.1 s, the most that it may; call it again.',
      };
      await expect(read()).rejects.toMatchObject(ended);
      expect(seen).toEqual([1]);
      expect(reasons).toMatchObject([ended]);
      expect(await channel.client(TestDefinition).ask({}, { timeoutMs: 10_000 })).toMatchObject({});
    } finally {
      channel.close();
      await server.shutdown({ graceMs: 1_000 });
    }
  });

  test('a stream that falls silent fails, one whose reader is slow does not', async () => {
    await using server = await startTestServer({
      async *list(_request, { signal }) {
        yield { offset: 1 };
        yield { offset: 2 };
        await aborted(signal);
      },
    });
    const seen: number[] = [];
    const read = async (): Promise<void> => {
      const stream = server.connect().client(TestDefinition).list({}, { timeoutMs: 10_000, idleTimeoutMs: 150 });
      for await (const { offset } of stream) {
        seen.push(offset);
        // Longer than the idle time, but then it is the reader who is slow.
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    };
    await expect(read()).rejects.toMatchObject({
      reason: 'DEADLINE_EXCEEDED',
      message: expect.stringContaining('sent nothing for 150 ms'),
    });
    expect(seen).toEqual([1, 2]);
  });
});
