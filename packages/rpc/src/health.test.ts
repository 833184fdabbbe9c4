import { describe, expect, test } from '@jest/globals';
import { startTestServer, TestDefinition } from '../test/support.js';
import { checkHealth, connect, watchHealth } from './index.js';

describe('health', () => {
  test('is reported for each service, and for the server as long as it listens', async () => {
    await using server = await startTestServer();
    const channel = server.connect();
    for (const serving of [true, false]) {
      server.server.setServing(serving);
      expect(await checkHealth(channel, TestDefinition.fullName, 5_000)).toBe(serving);
      expect(await checkHealth(channel, '', 5_000)).toBe(true);
    }
    await expect(checkHealth(channel, 'no.such.Service', 5_000)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });

  test('can be watched until the server goes away', async () => {
    await using server = await startTestServer();
    const states: boolean[] = [];
    const watch = async (): Promise<void> => {
      for await (const healthy of watchHealth(server.connect(), TestDefinition.fullName, { timeoutMs: 10_000 })) {
        states.push(healthy);
        if (states.length === 1) server.server.setServing(false);
        if (states.length === 2) server.server.setServing(true);
        if (states.length === 3) void server.server.shutdown({ graceMs: 5_000 });
      }
    };
    await expect(watch()).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    expect(states.slice(0, 3)).toEqual([true, false, true]);
  });

  test('is told the same at an address of its own, where nothing else is', async () => {
    await using server = await startTestServer();
    const { host, port } = await server.server.listenForHealth('127.0.0.1:0');
    const probe = connect(`${host}:${port}`, { kind: 'control' });
    try {
      for (const serving of [true, false]) {
        server.server.setServing(serving);
        expect(await checkHealth(probe, TestDefinition.fullName, 5_000)).toBe(serving);
        expect(await checkHealth(probe, '', 5_000)).toBe(true);
      }
      await expect(probe.client(TestDefinition).ask({}, { timeoutMs: 5_000 })).rejects.toMatchObject({
        message: expect.stringContaining('has no such method') as unknown,
      });
      await server.server.shutdown({ graceMs: 1_000 });
      await expect(checkHealth(probe, '', 1_000)).rejects.toMatchObject({
        reason: expect.stringMatching(/UNAVAILABLE|DEADLINE/) as unknown,
      });
    } finally {
      probe.close();
    }
  });
});
