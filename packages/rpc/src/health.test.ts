import { describe, expect, test } from '@jest/globals';
import { startTestServer, TestDefinition } from '../test/support.js';
import { checkHealth, watchHealth } from './index.js';

describe('health', () => {
  test('is reported for the server and for each service', async () => {
    await using server = await startTestServer();
    const channel = server.connect();
    for (const service of ['', TestDefinition.fullName]) {
      server.server.setServing(true);
      expect(await checkHealth(channel, service, 5_000)).toBe(true);
      server.server.setServing(false);
      expect(await checkHealth(channel, service, 5_000)).toBe(false);
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
});
