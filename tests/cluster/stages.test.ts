/** Blocks that are pruned in stages give the same bytes on any number of nodes, and whatever happens to the nodes in the middle of a block. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Allocation, LayerQuality, RowQuality, Score } from '@secateur/proto/allocation';
import { Propagation, TokenSource, type JobEvent } from '@secateur/proto/job';
import { Cluster, ServiceProcess, type ClusterOptions } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, withTemporaryFolder } from '../support/paths.js';
import { turnsOf } from '../support/scope.js';
import { slowDown } from '../support/slow-process.js';

const MODEL = 'books-llama';
const STAGES = 4;
const LAYERS = 4;
const SEARCHED = {
  score: Score.WANDA,
  allocation: Allocation.TRIM,
  // Long enough for a node to be killed in the middle of a block.
  iterations: 200,
  learningRates: [],
  negativeLearningRates: [],
  forbidNegativeLearningRates: false,
  groupPattern: undefined,
  layerQuality: LayerQuality.COSIM_FLAT,
  rowQuality: RowQuality.COSIM,
};
/** Six groups. */
const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-calibration.safetensors`), samples: 48 });

type Listener = (event: NonNullable<JobEvent['event']>, cluster: Cluster) => void;

async function pruneOn(propagation: Propagation, options: ClusterOptions, onEvent?: Listener): Promise<Record<string, string>> {
  return withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start(options);
    const output = join(folder, 'pruned');
    const spec = pruneSpec(MODEL, output, { propagation, options: SEARCHED, calibration });
    await prune(cluster.client, 'job', spec, ({ event }) => {
      if (event !== undefined) onEvent?.(event, cluster);
    });
    return await hashOutput(output);
  });
}

/** Counts the collecting passes of each layer: called with every event, it tells which one begins, from 1, or undefined. */
function passCounter(): (event: NonNullable<JobEvent['event']>) => { layer: number; pass: number } | undefined {
  const passes = new Map<number, number>();
  return (event) => {
    if (event.$case !== 'progress' || event.value.step !== 'collect' || event.value.done > 0) return undefined;
    const { layer } = event.value;
    const pass = (passes.get(layer) ?? 0) + 1;
    passes.set(layer, pass);
    return { layer, pass };
  };
}

let dense: Promise<Record<string, string>> | undefined;
const byTheDenseBlock = (): Promise<Record<string, string>> => (dense ??= pruneOn(Propagation.DENSE_BLOCK, { nodes: 1 }));

describe.each([
  ['recalculated inputs', Propagation.RECALCULATED_INPUTS, 0],
  ['staged', Propagation.STAGED, 1],
] as const)('%s', (_, propagation, index) => {
  let reference: Promise<Record<string, string>> | undefined;
  const onOneNode = (): Promise<Record<string, string>> => (reference ??= pruneOn(propagation, { nodes: 1 }));

  test('every layer is collected in four passes, and the result is not that of the dense block', async () => {
    const passOf = passCounter();
    const begun: { layer: number; pass: number }[] = [];
    reference = pruneOn(propagation, { nodes: 1 }, (event) => {
      const pass = passOf(event);
      if (pass !== undefined) begun.push(pass);
    });
    const hashes = await reference;
    expect(begun).toEqual(
      Array.from({ length: LAYERS * STAGES }, (_, index) => ({ layer: Math.floor(index / STAGES), pass: (index % STAGES) + 1 })),
    );
    expect(hashes['masks.safetensors']).not.toBe((await byTheDenseBlock())['masks.safetensors']);
  });

  test('3 nodes', async () => {
    expect(await pruneOn(propagation, { nodes: 3 })).toEqual(await onOneNode());
  });

  test.each(turnsOf([2, 4], index, 2))('a node is killed when pass %d of the second layer begins', async (killedAt) => {
    const passOf = passCounter();
    let lost = 0;
    const hashes = await pruneOn(propagation, { nodes: 2 }, (event, cluster) => {
      if (event.$case === 'nodeLost') lost += 1;
      const begun = passOf(event);
      if (begun?.layer === 1 && begun.pass === killedAt) void cluster.nodes[1]?.signal('SIGKILL');
    });
    expect(lost).toBeGreaterThan(0);
    expect(hashes).toEqual(await onOneNode());
  });

  test('a node that came back takes over in the middle of a layer', async () => {
    const passOf = passCounter();
    let addressOfSecond = '';
    let restarting: Promise<ServiceProcess> | undefined;
    let slowed: Disposable | undefined;
    let isBack = false;
    let takenOver = false;
    const restart = async (cluster: Cluster): Promise<ServiceProcess> => {
      await cluster.nodes[1]?.signal('SIGKILL');
      const args = ['node', '--listen', addressOfSecond, '--name', 'node-1', '--threads', '1', '--memory', '2GiB', '--backend', 'cpu'];
      return (await ServiceProcess.start(args)).process;
    };
    try {
      const hashes = await pruneOn(propagation, { nodes: 2 }, (event, cluster) => {
        const begun = passOf(event);
        if (event.$case === 'nodeJoined' && event.value.name === 'node-1') {
          addressOfSecond = event.value.address;
          isBack = restarting !== undefined;
        }
        if (begun?.pass === 2 && restarting === undefined) {
          // Or the job would be over before the other is back.
          slowed = slowDown(cluster.nodes[0]!);
          restarting = restart(cluster);
        }
        if (begun === undefined || begun.pass === 1 || !isBack || takenOver) return;
        // All groups go to the other node, which must have the masks of the passes before.
        takenOver = true;
        slowed?.[Symbol.dispose]();
        void cluster.nodes[0]?.signal('SIGKILL');
      });
      expect(takenOver).toBe(true);
      expect(hashes).toEqual(await onOneNode());
    } finally {
      slowed?.[Symbol.dispose]();
      await (await restarting)?.signal('SIGTERM');
    }
  });
});
