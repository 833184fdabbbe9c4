/** A node that stops answering without closing its connection: given up when it does so for long, waited for when not; the same bytes. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { TokenSource, type JobSpec } from '@secateur/proto/job';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, temporaryFolder, type TemporaryFolder } from '../support/paths.js';

/** Far below the 15 s after which a connection that is silent is given up. */
const MOMENT_MS = 1_500;

let folder: TemporaryFolder;
let cluster: Cluster;
let reference: Record<string, string>;

function spec(output: string): JobSpec {
  const path = fixturePath('calibration', 'books-opt-calibration.safetensors');
  return pruneSpec('books-opt', output, { calibration: TokenSource.fromPartial({ path, samples: 48, sequenceLength: 256 }) });
}

beforeAll(async () => {
  folder = await temporaryFolder();
  cluster = await Cluster.start({ nodes: 2 });
  const output = join(folder.path, 'reference');
  await prune(cluster.client, 'reference', spec(output));
  reference = await hashOutput(output);
});
afterAll(async () => {
  // Nothing else ends a process that is frozen.
  await cluster.nodes[1]?.signal('SIGKILL');
  await cluster[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

interface Fault {
  readonly output: string;
  /** Names of the nodes that were reported as lost. */
  readonly lost: readonly string[];
  /** By node, whether it stayed. */
  readonly stayed: Readonly<Record<string, boolean>>;
  /** Layers that were finished while the node was frozen. */
  readonly finishedMeanwhile: readonly number[];
}

/** Prunes, and freezes the second node in the middle of the search of layer 1, for a while or for good. */
async function pruneWithFrozenNode(name: string, frozenMs: number | undefined): Promise<Fault> {
  const output = join(folder.path, name);
  const { pid } = cluster.nodes[1]!;
  const lost: string[] = [];
  const finishedMeanwhile: number[] = [];
  let frozenAtMs = Number.POSITIVE_INFINITY;
  let goesOnAtMs = Number.POSITIVE_INFINITY;
  let goesOn = Promise.resolve();
  const report = await prune(cluster.client, name, spec(output), ({ event, time }) => {
    const atMs = time!.seconds * 1000 + time!.nanos / 1e6;
    if (event?.$case === 'nodeLost') lost.push(event.value.name);
    if (event?.$case === 'layerFinished' && atMs > frozenAtMs && atMs < goesOnAtMs) finishedMeanwhile.push(event.value.layer);
    if (event?.$case !== 'progress' || frozenAtMs < Number.POSITIVE_INFINITY) return;
    const { layer, step, done, total } = event.value;
    if (layer !== 1 || step !== 'allocate' || done === total) return;
    process.kill(pid, 'SIGSTOP');
    frozenAtMs = Date.now();
    if (frozenMs === undefined) return;
    goesOn = sleep(frozenMs).then(() => {
      goesOnAtMs = Date.now();
      process.kill(pid, 'SIGCONT');
    });
  });
  expect(frozenAtMs).toBeLessThan(Number.POSITIVE_INFINITY);
  await goesOn;
  const stayed = Object.fromEntries(report.nodes.map(({ name: node, lost: reason }) => [node, reason === '']));
  return { output, lost, stayed, finishedMeanwhile };
}

test('a node that is frozen for a moment, in the middle of a step, is waited for', async () => {
  const { output, lost, stayed, finishedMeanwhile } = await pruneWithFrozenNode('moment', MOMENT_MS);
  expect(lost).toEqual([]);
  expect(stayed).toEqual({ 'node-0': true, 'node-1': true });
  // The layer before may be written late; this one needs what the node has.
  expect(finishedMeanwhile.filter((layer) => layer > 0)).toEqual([]);
  expect(await hashOutput(output)).toEqual(reference);
});

test('a node that stays frozen is given up, and the job goes on without it', async () => {
  const { output, lost, stayed } = await pruneWithFrozenNode('for-good', undefined);
  expect(lost).toEqual(['node-1']);
  expect(stayed).toEqual({ 'node-0': true, 'node-1': false });
  expect(await hashOutput(output)).toEqual(reference);
});

test('an orchestrator that waits for a frozen node while it stops tells at once that new work is not welcome', async () => {
  const node = await ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--threads', '1']);
  const places = ['--listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0', '--root', '/', '--state', 'memory'];
  const { process: service, address, httpAddress } = await ServiceProcess.start(['serve', '--node', node.address, ...places]);
  const client = PruningClient.connect(address);
  let stopped: Promise<void> | undefined;
  try {
    await client.createJob({ jobId: 'stopped', spec: spec(join(folder.path, 'stopped')) });
    for await (const { event } of client.watchJob('stopped')) if (event?.$case === 'progress' && event.value.step === 'collect') break;
    const ready = async (): Promise<number> => (await fetch(`http://${httpAddress!}/readyz`)).status;
    expect(await ready()).toBe(200);
    process.kill(node.process.pid, 'SIGSTOP');
    stopped = service.signal('SIGTERM');
    await eventually(async () => (await ready()) === 503, 'it is not ready');
    await expect(client.createJob({ jobId: 'next', spec: spec(join(folder.path, 'next')) })).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
    });
  } finally {
    client.close();
    await node.process.signal('SIGKILL');
    await (stopped ?? service.signal('SIGTERM'));
  }
});
