import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { followObjects } from './follow-objects.js';

test('an API server that never answers a watch keeps nobody from ending', async () => {
  const server = createServer(() => undefined).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const folder = await mkdtemp(join(tmpdir(), 'secateur-test-'));
  process.env['KUBECONFIG'] = join(folder, 'config');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const config = {
    clusters: [{ name: 'test', cluster: { server: url, 'insecure-skip-tls-verify': true } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    users: [{ name: 'test', user: {} }],
    'current-context': 'test',
  };
  await writeFile(process.env['KUBECONFIG'], JSON.stringify(config));
  try {
    const stop = new AbortController();
    const problems: unknown[] = [];
    const asked = once(server, 'request');
    const following = followObjects(
      {
        path: '/apis/secateur.dev/v1alpha1/prunejobs',
        list: () => Promise.resolve({ items: [], metadata: { resourceVersion: '1' } }),
        onObjects: () => undefined,
        onProblem: (error) => problems.push(error),
      },
      stop.signal,
    );
    await asked;
    stop.abort();
    await following;
    expect(problems).toEqual([]);
  } finally {
    delete process.env['KUBECONFIG'];
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  }
});
