/** Calibration groups move with their hidden states: away from nodes that are slow or leave, and to those that join. The result stays the same. */
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { Repair, RepairTargets } from '@secateur/proto/allocation';
import { Propagation, TokenSource, type JobEvent, type JobSpec } from '@secateur/proto/job';
import { Compute, HiddenStates } from '@secateur/proto/model';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, temporaryFolder } from '../support/paths.js';
import { slowDown } from '../support/slow-process.js';
import { recordedSpans, type RecordedSpan } from '../support/spans.js';

const MODEL = 'books-qwen2';
const GROUPS = 8;
/** With a few of them a step takes more than a second longer. */
const SLOW_GROUP_SECONDS = 0.5;
const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-calibration.safetensors`), samples: 8 * GROUPS });

/** So few that none moves between two nodes that are about as fast. */
const FEW_GROUPS = 4;
const few = TokenSource.fromPartial({ ...calibration, samples: 8 * FEW_GROUPS });

const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());

interface Outcome {
  readonly spans: readonly RecordedSpan[];
  readonly hashes: Readonly<Record<string, string>>;
}

let jobs = 0;
async function run(cluster: Cluster, changes: Parameters<typeof pruneSpec>[2], onEvent?: (event: JobEvent) => void): Promise<Outcome> {
  const output = join(folder.path, `pruned-${++jobs}`);
  const spec: JobSpec = { ...pruneSpec(MODEL, output, { calibration, ...changes }), recordTrace: true };
  await prune(cluster.client, 'job', spec, onEvent);
  return { spans: await recordedSpans(cluster.client, 'job'), hashes: await hashOutput(output) };
}

const references = new Map<string, Promise<Outcome>>();
function onOneNode(name: string, changes: Parameters<typeof pruneSpec>[2]): Promise<Outcome> {
  const known = references.get(name) ?? runAlone(changes);
  references.set(name, known);
  return known;
}

async function runAlone(changes: Parameters<typeof pruneSpec>[2]): Promise<Outcome> {
  await using cluster = await Cluster.start({ nodes: 1 });
  return await run(cluster, changes);
}

/**
 * So many times slower it is worth it to move groups of a small model, however fast this machine is. By the fastest pass: what else runs here
 * meanwhile may be over when it counts, and a node that is not slow enough is given all of its groups at once.
 */
async function timesSlower(): Promise<number> {
  const { spans } = await onOneNode('float32', {});
  const paces = named(spans, 'secateur.collect').map(({ seconds, attributes }) => seconds / Number(attributes.get('secateur.groups')));
  return Math.max(5, Math.ceil(SLOW_GROUP_SECONDS / Math.min(...paces)));
}

/** How many of so many groups a node collected, pass by pass; a node may do its share bit by bit. */
function collectedBy(spans: readonly RecordedSpan[], node: string, groups = GROUPS): number[] {
  const passes: number[] = [];
  let collected = 0;
  for (const { name, attributes } of spans) {
    if (name !== 'secateur.collect') continue;
    if (collected % groups === 0) passes.push(0);
    const count = Number(attributes.get('secateur.groups'));
    collected += count;
    if (attributes.get('secateur.node') === node) passes[passes.length - 1]! += count;
  }
  return passes;
}

const named = (spans: readonly RecordedSpan[], name: string): RecordedSpan[] => spans.filter((span) => span.name === name);

test('a slow node keeps what it does in the time of the others, and its groups bring their hidden states', async () => {
  const times = await timesSlower();
  await using cluster = await Cluster.start({ nodes: 2 });
  const [, slow] = cluster.nodes;
  using _slowed = slowDown(slow!, times);
  const { spans, hashes } = await run(cluster, {});
  const counts = collectedBy(spans, 'node-1');
  expect(counts[0]).toBe(GROUPS / 2);
  expect(counts.at(-1)).toBeLessThan(GROUPS / 2);
  expect(named(spans, 'secateur.move').length).toBeGreaterThan(0);
  expect(named(spans, 'secateur.replay')).toEqual([]);
  expect(hashes).toEqual((await onOneNode('float32', {})).hashes);
});

test('a node that is done takes over groups that another would only do later in the step', async () => {
  const times = await timesSlower();
  await using cluster = await Cluster.start({ nodes: 2 });
  const slowed = cluster.nodes.map((node) => slowDown(node, times));
  try {
    // Both are found slow at first; then one gets fast, and the other slower still for the time of that step.
    const { spans, hashes } = await run(cluster, { calibration: few }, ({ event }) => {
      if (event?.$case !== 'progress' || event.value.layer !== 1) return;
      for (const one of slowed.splice(0)) one[Symbol.dispose]();
      if (event.value.step === 'collect') slowed.push(slowDown(cluster.nodes[1]!, 3 * times));
    });
    const second = spans.slice(spans.findIndex(({ name }) => name === 'secateur.layer'));
    const collecting = second.slice(
      0,
      second.findIndex(({ name }) => name === 'secateur.propagate'),
    );
    const ofFreed = collecting.filter(({ attributes }) => attributes.get('secateur.node') === 'node-0').map(({ name }) => name);
    // By the paces of the layer before, groups may move before the step too.
    const firstCollected = ofFreed.indexOf('secateur.collect');
    const taken = ofFreed.indexOf('secateur.move', firstCollected + 1);
    expect(taken).toBeGreaterThan(firstCollected);
    expect(taken).toBeLessThan(ofFreed.lastIndexOf('secateur.collect'));
    expect(collectedBy(spans, 'node-1', FEW_GROUPS)[1]).toBeLessThan(FEW_GROUPS / 2);
    expect(hashes).toEqual((await onOneNode('few', { calibration: few })).hashes);
  } finally {
    for (const one of slowed) one[Symbol.dispose]();
  }
});

test('a node that joins gets its share of the groups at the next layer', async () => {
  const times = await timesSlower();
  await using cluster = await Cluster.start({ nodes: 2 });
  const [first, second] = cluster.nodes;
  let address = '';
  await eventually(async () => {
    address = (await cluster.client.listNodes()).find(({ description }) => description?.name === 'node-1')?.address ?? '';
    return address !== '';
  }, 'the second node');
  await second!.signal('SIGKILL');
  const arguments_ = ['node', '--listen', address, '--name', 'node-1', '--threads', '1', '--memory', '2GiB', '--backend', 'cpu'];
  let joining: Promise<ServiceProcess> | undefined;
  let slowed: Disposable | undefined;
  const join = async (): Promise<ServiceProcess> => {
    const { process: joined } = await ServiceProcess.start(arguments_);
    const hasJoined = async (): Promise<boolean> => (await cluster.client.listNodes()).find((node) => node.address === address)!.healthy;
    await eventually(hasJoined, 'the second node is there');
    slowed = slowDown(first!, times);
    return joined;
  };
  try {
    const { spans, hashes } = await run(cluster, {}, ({ event }) => {
      if (event?.$case !== 'progress' || event.value.step !== 'allocate' || joining !== undefined) return;
      // It stays in the first layer until the other has come, and is the slower one then.
      process.kill(first!.pid, 'SIGSTOP');
      joining = join();
    });
    expect(collectedBy(spans, 'node-0')[0]).toBe(GROUPS);
    expect(collectedBy(spans, 'node-1')[1]).toBeGreaterThan(0);
    expect(collectedBy(spans, 'node-1').at(-1)).toBeGreaterThan(GROUPS / 2);
    expect(named(spans, 'secateur.replay')).toEqual([]);
    expect(hashes).toEqual((await onOneNode('float32', {})).hashes);
  } finally {
    slowed?.[Symbol.dispose]();
    await (await joining)?.signal('SIGTERM');
  }
});

describe.each([
  ['float32', {}],
  ['bfloat16', { compute: Compute.F32, hiddenStates: HiddenStates.BF16 }],
  [
    'float32, of the dense model too',
    {
      propagation: Propagation.STAGED,
      repair: { method: Repair.FIT, damping: 0.01, iterations: 1, targets: RepairTargets.DENSE },
    },
  ],
])('hidden states in %s', (name, changes) => {
  test('those of a node that leaves are not computed again', async () => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const [, leaving] = cluster.nodes;
    let left: Promise<void> | undefined;
    const { spans, hashes } = await run(cluster, changes, ({ event }) => {
      if (event?.$case === 'progress' && event.value.layer === 1 && event.value.step === 'propagate') left ??= leaving!.signal('SIGTERM');
    });
    await left;
    expect(leaving!.exitCode).toBe(0);
    expect(collectedBy(spans, 'node-0').at(-1)).toBe(GROUPS);
    expect(named(spans, 'secateur.move')).toHaveLength(1);
    expect(named(spans, 'secateur.replay')).toEqual([]);
    expect(hashes).toEqual((await onOneNode(name, changes)).hashes);
  });
});
