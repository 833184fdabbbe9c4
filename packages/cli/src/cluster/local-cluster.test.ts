import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, jest, test } from '@jest/globals';
import { Interrupted } from '../output/exit.js';
import { LocalCluster } from './local-cluster.js';

// Processes start slowly on a busy machine.
jest.setTimeout(60_000);

const COMMAND = fileURLToPath(new URL('../../bin/secateur.js', import.meta.url));
const OPTIONS = { nodes: 1, threads: 1, backend: 'cpu', roots: [tmpdir()] };
const UNTIL_THE_END = new AbortController().signal;

test('listens on loopback until it is disposed of', async () => {
  await using cluster = await LocalCluster.start(OPTIONS, UNTIL_THE_END);
  expect(cluster.address).toMatch(/^127\.0\.0\.1:\d+$/);
  expect(cluster.lost.aborted).toBe(false);
});

test('a node that cannot start fails the cluster with its reason', async () => {
  const failure = LocalCluster.start({ ...OPTIONS, nodes: 2, backend: 'cuda' }, UNTIL_THE_END);
  await expect(failure).rejects.toMatchObject({ reason: 'UNAVAILABLE', message: expect.stringMatching(/node-0 .*cuda/) });
});

test('starting can be interrupted', async () => {
  const stop = new AbortController();
  const starting = LocalCluster.start(OPTIONS, stop.signal);
  stop.abort();
  await expect(starting).rejects.toThrow(Interrupted);
});

test.each(['before', 'after'])('a service ends when its starter is gone %s it listens', async (when) => {
  const child = spawn(process.execPath, [COMMAND, 'node', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
  try {
    if (when === 'after') await once(child, 'message');
    const exited = once(child, 'exit');
    child.disconnect();
    expect(await exited).toEqual([0, null]);
  } finally {
    child.kill('SIGKILL');
  }
});
