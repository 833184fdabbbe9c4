import { describe, expect, test } from '@jest/globals';
import { aborted, startTestServer, TestDefinition } from '../test/support.js';

describe('shutdown', () => {
  test('asks handlers to stop and tells their callers UNAVAILABLE', async () => {
    let running = 0;
    const reasons: unknown[] = [];
    const begin = (): void => {
      running += 1;
      if (running === 2) stop();
    };
    let stop: () => void = () => undefined;
    await using server = await startTestServer({
      ask: async (_request, { signal }) => {
        begin();
        reasons.push(await aborted(signal));
        throw new Error('interrupted');
      },
      async *list(_request, { signal }) {
        yield { offset: 1 };
        begin();
        reasons.push(await aborted(signal));
        throw new Error('interrupted');
      },
    });
    const stopped = new Promise<void>((resolve) => {
      stop = () => resolve(server.server.shutdown({ graceMs: 10_000 }));
    });
    const client = server.connect().client(TestDefinition);
    const read = async (): Promise<void> => {
      for await (const { offset } of client.list({}, { timeoutMs: 10_000 })) expect(offset).toBe(1);
    };
    const outcomes = await Promise.allSettled([client.ask({}, { timeoutMs: 10_000 }), read()]);
    expect(outcomes).toMatchObject([{ reason: { reason: 'UNAVAILABLE' } }, { reason: { reason: 'UNAVAILABLE' } }]);
    await stopped;
    expect(reasons).toMatchObject([{ reason: 'UNAVAILABLE' }, { reason: 'UNAVAILABLE' }]);
  });

  test('lets a handler finish that is nearly done', async () => {
    let stopped: Promise<void> = Promise.resolve();
    await using server = await startTestServer({
      ask: async (_request, { signal }) => {
        stopped = server.server.shutdown({ graceMs: 10_000 });
        await aborted(signal);
        return { offset: 7 };
      },
    });
    await expect(server.connect().client(TestDefinition).ask({}, { timeoutMs: 10_000 })).resolves.toMatchObject({ offset: 7 });
    await stopped;
  });

  test('cuts off handlers that do not stop within the grace', async () => {
    let stopped: Promise<void> = Promise.resolve();
    await using server = await startTestServer({
      ask: () => {
        stopped = server.server.shutdown({ graceMs: 100 });
        return new Promise(() => undefined);
      },
    });
    await expect(server.connect().client(TestDefinition).ask({}, { timeoutMs: 10_000 })).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    await stopped;
  });
});
