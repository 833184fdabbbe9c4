/** Nodes come and go while a job runs, and the result stays the same. */
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { checkHealth, connect } from '@secateur/rpc';
import { KubernetesApi } from '../../services/orchestrator/test/kubernetes-api.js';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-opt';
const NODE = ['node', '--threads', '1', '--memory', '2GiB', '--backend', 'cpu'];

let reference: Record<string, string> | undefined;
async function referenceHashes(): Promise<Record<string, string>> {
  reference ??= await withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 1 });
    await prune(cluster.client, 'job', pruneSpec(MODEL, join(folder, 'pruned')));
    return await hashOutput(join(folder, 'pruned'));
  });
  return reference;
}

test.each(['collect', 'allocate'])('a node that drains during %s ends its step and leaves', (step) =>
  withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const [, drained] = cluster.nodes;
    const lost: string[] = [];
    let ended: Promise<number | null> | undefined;
    await prune(cluster.client, 'job', pruneSpec(MODEL, join(folder, 'pruned')), ({ event }) => {
      if (event?.$case === 'nodeLost') lost.push(`${event.value.name}: ${event.value.reason}`);
      if (event?.$case !== 'progress' || event.value.step !== step || event.value.done === 0) return;
      ended ??= drained?.signal('SIGTERM').then(() => drained.exitCode);
    });
    expect(lost).toEqual(['node-1: draining']);
    expect(await ended).toBe(0);
    expect(await hashOutput(join(folder, 'pruned'))).toEqual(await referenceHashes());
  }),
);

test('a pod that joins a service joins the running job, one that ends leaves it', () =>
  withTemporaryFolder(async (folder) => {
    await using api = await KubernetesApi.start();
    await writeFile(join(folder, 'kubeconfig'), api.kubeconfig);
    const first = await ServiceProcess.start([...NODE, '--name', 'first', '--listen', '127.0.0.2:0']);
    const port = first.address.split(':')[1] ?? '';
    const second = await ServiceProcess.start([...NODE, '--name', 'second', '--listen', `127.0.0.3:${port}`]);
    api.setSlice('nodes-a', [{ addresses: ['127.0.0.2'], conditions: { ready: true } }]);
    const roots = [repositoryRoot, tmpdir()].flatMap((root) => ['--root', root]);
    const node = ['--node', `endpointslices:prune/nodes:${port}`];
    const serve = await ServiceProcess.start(['serve', '--listen', '127.0.0.1:0', '--state', 'memory', ...node, ...roots], {
      KUBECONFIG: join(folder, 'kubeconfig'),
    });
    const client = PruningClient.connect(serve.address);
    const seen: string[] = [];
    try {
      const changes = new Map([
        ['first block', () => api.setSlice('nodes-b', [{ addresses: ['127.0.0.3'], conditions: { ready: true } }])],
        ['joined', () => api.setSlice('nodes-a', [{ addresses: ['127.0.0.2'], conditions: { serving: true, terminating: true } }])],
      ]);
      const once = (what: string): void => {
        changes.get(what)?.();
        changes.delete(what);
      };
      await prune(client, 'job', pruneSpec(MODEL, join(folder, 'pruned')), ({ event }) => {
        if (event?.$case === 'progress') once('first block');
        if (event?.$case === 'nodeJoined') {
          seen.push(`${event.value.name} joined`);
          if (event.value.name === 'second') once('joined');
        }
        if (event?.$case === 'nodeLost') seen.push(`${event.value.name}: ${event.value.reason}`);
      });
      expect(seen).toEqual(['first joined', 'second joined', 'first: no longer in the cluster']);
      expect((await client.listNodes()).map(({ address }) => address)).toEqual([second.address]);
      expect(await hashOutput(join(folder, 'pruned'))).toEqual(await referenceHashes());
    } finally {
      client.close();
      await serve.process.signal('SIGTERM');
      await Promise.all([first, second].map((started) => started.process.signal('SIGTERM')));
    }
  }));

test('probes are answered at an address of their own', async () => {
  const { process } = await ServiceProcess.start([...NODE, '--listen', '127.0.0.1:0', '--health-listen', '127.0.0.1:0']);
  try {
    const findPort = (): string | undefined => /"health":\{"host":"127\.0\.0\.1","port":(\d+)\}/.exec(process.output)?.[1];
    // The log comes another way than the news that it listens.
    await eventually(() => findPort() !== undefined, 'the log tells the port');
    const port = findPort();
    const probe = connect(`127.0.0.1:${port}`, { kind: 'control' });
    expect(await checkHealth(probe, '', 5_000)).toBe(true);
    expect(await checkHealth(probe, 'secateur.v1.KernelService', 5_000)).toBe(true);
    probe.close();
  } finally {
    await process.signal('SIGTERM');
  }
});
