import { expect, test } from '@jest/globals';
import { startTestServer } from '../test/support.js';
import { connect, RpcServer } from './index.js';

test('waiting for a server ends when it is there, when the time is over, and when the caller says so', async () => {
  await using server = await startTestServer();
  await server.connect().waitForReady(5_000);
  await server.server.shutdown({ graceMs: 100 });
  const channel = connect(server.address, { kind: 'control' });
  try {
    await expect(channel.waitForReady(300)).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
      message: expect.stringContaining(server.address),
    });
    const started = performance.now();
    await expect(channel.waitForReady(20_000, AbortSignal.timeout(100))).rejects.toMatchObject({ reason: 'CANCELLED' });
    expect(performance.now() - started).toBeLessThan(2_000);
    channel.close();
    await expect(channel.waitForReady(5_000)).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
      message: expect.stringContaining('was closed'),
    });
  } finally {
    channel.close();
  }
});

test.each(['localhost', '127.0.0.1:', ':80', '127.0.0.1:99999', 'http://host:80'])('%s is not an address', (address) => {
  expect(() => connect(address, { kind: 'control' })).toThrow(/is not HOST:PORT/);
});

test('a port that is in use is told as that, with what to do', async () => {
  await using server = await startTestServer();
  await expect(new RpcServer().listen(server.address)).rejects.toMatchObject({
    reason: 'FAILED_PRECONDITION',
    message: `Cannot listen at ${server.address}: another process listens there (EADDRINUSE). Stop it, or choose another port.`,
  });
});
