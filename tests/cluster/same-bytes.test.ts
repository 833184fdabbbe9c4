/** The same job gives the same bytes whatever the cluster looks like and whatever happens to it. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, QualityInputs, TokenSource, type JobEvent } from '@secateur/proto/job';
import { Cluster, type ClusterOptions } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-llama';
/** Six groups: two for each of three nodes. */
const calibration = TokenSource.fromPartial({
  path: fixturePath('calibration', `${MODEL}-calibration.safetensors`),
  samples: 48,
  sequenceLength: 256,
});

async function pruneOn(
  options: ClusterOptions,
  onEvent?: (event: JobEvent, cluster: Cluster) => void,
  changes: Parameters<typeof pruneSpec>[2] = {},
): Promise<Record<string, string>> {
  return withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start(options);
    const output = join(folder, 'pruned');
    await prune(cluster.client, 'job', pruneSpec(MODEL, output, { calibration, ...changes }), (event) => onEvent?.(event, cluster));
    return await hashOutput(output);
  });
}

let reference: Record<string, string> | undefined;
async function referenceHashes(): Promise<Record<string, string>> {
  reference ??= await pruneOn({ nodes: 1, threads: 1 });
  return reference;
}

describe('the result is the same', () => {
  test('on 1 node with 2 threads', async () => {
    expect(await pruneOn({ nodes: 1, threads: 2 })).toEqual(await referenceHashes());
  });

  test('on 2 nodes', async () => {
    expect(await pruneOn({ nodes: 2 })).toEqual(await referenceHashes());
  });

  test('on 3 nodes', async () => {
    expect(await pruneOn({ nodes: 3 })).toEqual(await referenceHashes());
  });

  test('on 2 nodes that read the checkpoint themselves, of which the orchestrator then sends next to nothing', async () => {
    const sent: number[] = [];
    for (const node of [[], ['--root', repositoryRoot]]) {
      await withTemporaryFolder(async (folder) => {
        await using cluster = await Cluster.start({ nodes: 2, node, serve: ['--http-listen', '127.0.0.1:0'] });
        const output = join(folder, 'pruned');
        await prune(cluster.client, 'job', pruneSpec(MODEL, output, { calibration }));
        expect(await hashOutput(output)).toEqual(await referenceHashes());
        const metrics = await (await fetch(`http://${cluster.httpAddress}/metrics`)).text();
        sent.push(Number(/^secateur_fetch_sent\S*\s+(\d+)/m.exec(metrics)?.[1]));
      });
    }
    expect(sent[0]).toBeGreaterThan(1e6);
    // Statistics and masks are pulled all the same.
    expect(sent[1]).toBeLessThan(sent[0]! / 2);
  });

  test('on 1 and 3 nodes when rows are split for the least error on all tokens', async () => {
    const changes = { allocation: Allocation.OPTIMAL, qualityInputs: QualityInputs.ALL, sketches: 2 };
    const onOne = await pruneOn({ nodes: 1, threads: 2 }, undefined, changes);
    expect(await pruneOn({ nodes: 3 }, undefined, changes)).toEqual(onOne);
    expect(onOne['model.safetensors']).not.toBe((await referenceHashes())['model.safetensors']);
  });

  test.each([
    ['SIGKILL', 'collect'],
    ['SIGKILL', 'allocate'],
    ['SIGKILL', 'propagate'],
    ['SIGTERM', 'collect'],
  ] as const)('when a node gets %s during %s of the third block', async (signal, step) => {
    let killed = false;
    let lost = 0;
    const hashes = await pruneOn({ nodes: 2 }, ({ event }, cluster) => {
      if (event?.$case === 'nodeLost') lost += 1;
      if (event?.$case !== 'progress' || event.value.layer !== 2 || event.value.step !== step || killed) return;
      killed = true;
      void cluster.nodes[1]?.signal(signal);
    });
    expect(killed).toBe(true);
    expect(lost).toBeGreaterThan(0);
    expect(hashes).toEqual(await referenceHashes());
  });

  test('when the job is cancelled and created again', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 2 });
      const spec = pruneSpec(MODEL, join(folder, 'pruned'), { calibration });
      const finishedLayers = async (): Promise<number> => (await cluster.client.getJob('job')).finishedLayers;
      await cluster.client.createJob({ jobId: 'job', spec });
      await eventually(async () => (await finishedLayers()) >= 2, 'two blocks are finished');
      await cluster.client.cancelJob('job');
      expect((await cluster.client.getJob('job')).state).toBe(JobState.CANCELLED);
      const report = await prune(cluster.client, 'job', spec);
      expect(report.resumedLayers).toBeGreaterThanOrEqual(2);
      expect(await hashOutput(join(folder, 'pruned'))).toEqual(await referenceHashes());
    }));

  test('when the orchestrator is killed and another one goes on', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      {
        await using cluster = await Cluster.start({ nodes: 2 });
        await cluster.client.createJob({ jobId: 'job', spec: pruneSpec(MODEL, output, { calibration }) });
        await eventually(async () => (await cluster.client.getJob('job')).finishedLayers >= 1, 'a block is finished');
        await cluster.orchestrator.signal('SIGKILL');
      }
      await using cluster = await Cluster.start({ nodes: 2 });
      const report = await prune(cluster.client, 'job', pruneSpec(MODEL, output, { calibration }));
      expect(report.resumedLayers).toBeGreaterThanOrEqual(1);
      expect(await hashOutput(output)).toEqual(await referenceHashes());
    }));
});
