import { describe, expect, test } from '@jest/globals';
import { aborted, startTestServer, TestDefinition } from '../test/support.js';

describe('cancellation', () => {
  test('of a unary call reaches its handler', async () => {
    const abort = new AbortController();
    let reason: unknown;
    const finished = new Promise<void>((resolve, reject) => {
      setTimeout(reject, 10_000).unref();
      void (async () => {
        await using server = await startTestServer({
          ask: async (_request, { signal }) => {
            abort.abort(new Error('changed my mind'));
            reason = await aborted(signal);
            resolve();
            return {};
          },
        });
        const call = server.connect().client(TestDefinition).ask({}, { timeoutMs: 10_000, signal: abort.signal });
        await expect(call).rejects.toMatchObject({ reason: 'CANCELLED', cause: { message: 'changed my mind' } });
        await finished;
      })().catch(reject);
    });
    await finished;
    expect(reason).toMatchObject({ reason: 'CANCELLED' });
  });

  test('is not what the end of an answered call means', async () => {
    let signal: AbortSignal | undefined;
    await using server = await startTestServer({
      ask: (_request, context) => {
        signal = context.signal;
        return Promise.resolve({});
      },
    });
    const client = server.connect().client(TestDefinition);
    await client.ask({}, { timeoutMs: 5_000 });
    const first = signal;
    await client.ask({}, { timeoutMs: 5_000 });
    expect(first?.aborted).toBe(false);
  });

  test('before a call is made keeps it from being made', async () => {
    let handled = false;
    await using server = await startTestServer({
      ask: () => {
        handled = true;
        return Promise.resolve({});
      },
    });
    const client = server.connect().client(TestDefinition);
    await expect(client.ask({}, { timeoutMs: 1_000, signal: AbortSignal.abort() })).rejects.toMatchObject({ reason: 'CANCELLED' });
    await expect(client.list({}, { timeoutMs: 1_000, signal: AbortSignal.abort() }).next()).rejects.toMatchObject({ reason: 'CANCELLED' });
    expect(handled).toBe(false);
  });

  test('of a stream ends its generator', async () => {
    const ended = deferred<unknown>();
    await using server = await startTestServer({
      async *list(_request, { signal }) {
        try {
          for (let offset = 0; ; offset++) yield { offset, data: Buffer.alloc(1 << 16) };
        } finally {
          ended.resolve(signal.reason);
        }
      },
    });
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      for await (const { offset } of server.connect().client(TestDefinition).list({}, { timeoutMs: 10_000, signal: abort.signal })) {
        if (offset === 10) abort.abort();
      }
    };
    await expect(read()).rejects.toMatchObject({ reason: 'CANCELLED' });
    expect(await ended.promise).toMatchObject({ reason: 'CANCELLED' });
  });

  test('a reader that stops early ends the generator too', async () => {
    const ended = deferred<unknown>();
    await using server = await startTestServer({
      async *list(_request, { signal }) {
        try {
          for (let offset = 0; ; offset++) yield { offset };
        } finally {
          ended.resolve(signal.reason);
        }
      },
    });
    for await (const { offset } of server.connect().client(TestDefinition).list({}, { timeoutMs: 10_000 })) {
      if (offset === 3) break;
    }
    expect(await ended.promise).toMatchObject({ reason: 'CANCELLED' });
  });
});

function deferred<Value>(): { promise: Promise<Value>; resolve: (value: Value) => void } {
  let resolve: (value: Value) => void = () => undefined;
  const promise = new Promise<Value>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
