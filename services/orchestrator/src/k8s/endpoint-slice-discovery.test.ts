import { writeFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { KubernetesApi } from '../../test/kubernetes-api.js';
import { Reports } from '../../test/reports.js';
import { EndpointSliceDiscovery } from './endpoint-slice-discovery.js';

const SOURCE = { namespace: 'prune', service: 'nodes', port: 7401 };
const ready = (address: string): object => ({ addresses: [address], conditions: { ready: true } });

let api: KubernetesApi;
let folder: string;
let reports: Reports;
let stop: AbortController;

beforeEach(async () => {
  api = await KubernetesApi.start();
  folder = await mkdtemp(join(tmpdir(), 'secateur-test-'));
  process.env['KUBECONFIG'] = join(folder, 'config');
  await writeFile(process.env['KUBECONFIG'], api.kubeconfig);
  reports = new Reports();
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort();
  delete process.env['KUBECONFIG'];
  await api[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Starts to discover, and resolves once the watch has begun. */
async function start(): Promise<void> {
  const listed = reports.next();
  new EndpointSliceDiscovery(SOURCE, pino({ enabled: false })).start(reports.add, stop.signal);
  await listed;
  if (!api.requests.some(({ searchParams }) => searchParams.get('watch') === 'true')) await api.nextRequest();
}

describe('the endpoints of a service', () => {
  test('are listed, and followed from there', async () => {
    api.setSlice('nodes-a', [ready('10.0.0.5')]);
    await start();
    expect(reports.seen).toEqual([['10.0.0.5:7401']]);
    const steps = [
      { change: () => api.setSlice('nodes-b', [ready('10.0.0.6')]), expected: ['10.0.0.5:7401', '10.0.0.6:7401'] },
      { change: () => api.setSlice('nodes-a', [ready('10.0.0.7')]), expected: ['10.0.0.6:7401', '10.0.0.7:7401'] },
      { change: () => api.removeSlice('nodes-a'), expected: ['10.0.0.6:7401'] },
    ];
    for (const { change, expected } of steps) {
      const next = reports.next();
      change();
      expect(await next).toEqual(expected);
    }
    expect(api.requests.map(({ searchParams }) => searchParams.get('resourceVersion'))).toEqual([null, '101']);
  });

  test('are known by the host name that the pod has in the service, and left out once the pod ends', async () => {
    const named = { ...ready('10.0.0.5'), hostname: 'node-0' };
    api.setSlice('nodes-a', [named, { addresses: ['10.0.0.6'], conditions: { ready: false, serving: true, terminating: true } }]);
    await start();
    expect(reports.seen).toEqual([['node-0.nodes.prune.svc:7401']]);
  });

  test('are none where a slice has none', async () => {
    api.setSlice('nodes-a', null);
    api.setSlice('nodes-b', [ready('10.0.0.6')]);
    await start();
    expect(reports.seen).toEqual([['10.0.0.6:7401']]);
    const steps = [
      { endpoints: [ready('10.0.0.7')], expected: ['10.0.0.7:7401'] },
      { endpoints: null, expected: [] },
    ];
    for (const { endpoints, expected } of steps) {
      const next = reports.next();
      api.setSlice('nodes-b', endpoints);
      expect(await next).toEqual(expected);
    }
  });

  test('are watched on from the last version when the server ends the watch', async () => {
    await start();
    const added = reports.next();
    api.setSlice('nodes-a', [ready('10.0.0.5')]);
    await added;
    api.endWatches();
    api.setSlice('nodes-a', [ready('10.0.0.6')]);
    expect(await reports.next()).toEqual(['10.0.0.6:7401']);
    expect(api.requests.map(({ searchParams }) => searchParams.get('resourceVersion'))).toEqual([null, '100', '101']);
  });

  test.each(['event', 'status'] as const)('are listed anew when the server says 410 Gone by %s', async (how) => {
    await start();
    api.endWatches();
    api.setSlice('nodes-a', [ready('10.0.0.5')]);
    api.setSlice('nodes-a', [ready('10.0.0.6')]);
    api.forget(how);
    expect(await reports.next()).toEqual(['10.0.0.6:7401']);
    expect(api.requests.filter(({ searchParams }) => !searchParams.has('watch'))).toHaveLength(2);
  });

  test('are asked for again when the server fails', async () => {
    api.failures.push(500, 503);
    api.setSlice('nodes-a', [ready('10.0.0.5')]);
    await start();
    expect(reports.seen).toEqual([['10.0.0.5:7401']]);
    expect(api.requests.length).toBeGreaterThanOrEqual(3);
  });
});
