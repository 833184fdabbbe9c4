/** Repaired jobs: kept weights change, the dropped stay dropped, and the cluster changes no byte. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Allocation, Repair, RepairTargets, Score } from '@secateur/proto/allocation';
import { JobState, Propagation, TokenSource, type JobEvent } from '@secateur/proto/job';
import type { PruneReport } from '@secateur/proto/pruning_service';
import { openCheckpoint } from '@secateur/checkpoint';
import { Cluster, type ClusterOptions } from '../support/cluster.js';
import { eventually, evaluate, evaluateSpec, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-opt';
/** Some of the recorded ids. */
function ids(kind: 'calibration' | 'eval', samples: number): TokenSource {
  return TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-${kind}.safetensors`), samples, sequenceLength: 256 });
}

/** Nodes share Gram matrices and drifts, and keep the hidden states of two models. */
const ADMM = {
  sparsity: 0.8,
  calibration: ids('calibration', 48),
  repair: { method: Repair.ADMM, damping: 0.01, iterations: 20, targets: RepairTargets.DENSE },
  allocation: Allocation.UNIFORM,
  propagation: Propagation.STAGED,
};

type Changes = Parameters<typeof pruneSpec>[2];

async function pruneOn(
  changes: Changes,
  options: ClusterOptions,
  onEvent?: (event: JobEvent, cluster: Cluster) => void,
): Promise<Record<string, string>> {
  return withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start(options);
    const output = join(folder, 'pruned');
    await prune(cluster.client, 'job', pruneSpec(MODEL, output, changes), (event) => onEvent?.(event, cluster));
    return await hashOutput(output);
  });
}

describe('a repaired model', () => {
  let reference: Promise<Record<string, string>> | undefined;
  const referenceHashes = (): Promise<Record<string, string>> => (reference ??= pruneOn(ADMM, { nodes: 1, threads: 2 }));

  test('is the same on 3 nodes', async () => {
    expect(await pruneOn(ADMM, { nodes: 3 })).toEqual(await referenceHashes());
  });

  // At the end of a pass the others have published their sums when those of the lost groups are made again.
  test.each([
    ['begins to', 'collect', 0],
    ['has done all to', 'collect', 6],
    ['begins to', 'allocate', 0],
  ] as const)('is the same when a node is killed while the second block %s %s', async (_, step, done) => {
    let killed = false;
    let lost = 0;
    const hashes = await pruneOn(ADMM, { nodes: 3 }, ({ event }, cluster) => {
      if (event?.$case === 'nodeLost') lost += 1;
      if (event?.$case !== 'progress' || event.value.layer !== 1 || event.value.step !== step || killed) return;
      if (event.value.done < done) return;
      killed = true;
      void cluster.nodes[0]?.signal('SIGKILL');
    });
    expect(killed).toBe(true);
    expect(lost).toBe(1);
    expect(hashes).toEqual(await referenceHashes());
  });

  test('is the same when the job is cancelled and goes on', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 2 });
      const spec = pruneSpec(MODEL, join(folder, 'pruned'), ADMM);
      await cluster.client.createJob({ jobId: 'job', spec });
      await eventually(async () => (await cluster.client.getJob('job')).finishedLayers >= 1, 'a block is finished');
      await cluster.client.cancelJob('job');
      expect((await cluster.client.getJob('job')).state).toBe(JobState.CANCELLED);
      await prune(cluster.client, 'job', spec);
      expect(await hashOutput(join(folder, 'pruned'))).toEqual(await referenceHashes());
    }));
});

describe('every kind of repair', () => {
  const kinds: readonly (readonly [string, Changes])[] = [
    ['fit', { repair: { ...ADMM.repair, method: Repair.FIT, targets: RepairTargets.OWN } }],
    ['admm by the rows of TRIM', { ...ADMM, allocation: Allocation.TRIM }],
    ['admm', { ...ADMM, repair: { ...ADMM.repair, targets: RepairTargets.OWN }, propagation: Propagation.DENSE_BLOCK }],
    ['admm towards the dense model', ADMM],
    ['SparseGPT', { score: Score.SPARSEGPT, allocation: Allocation.UNIFORM }],
    ['SparseGPT by the rows of TRIM', { score: Score.SPARSEGPT }],
  ];

  test('drops exactly what its masks say, makes every projection better and the model too', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 1, threads: 2 });
      const sparsity = 0.8;
      const run = (name: string, changes: Changes): Promise<PruneReport> => {
        const spec = pruneSpec(MODEL, join(folder, name), { ...changes, sparsity, calibration: ids('calibration', 48) });
        return prune(cluster.client, name.replaceAll(' ', '-'), spec);
      };
      const perplexityOf = async (name: string): Promise<number> => {
        const spec = evaluateSpec(MODEL, join(folder, name), { data: ids('eval', 16) });
        return (await evaluate(cluster.client, `eval-${name.replaceAll(' ', '-')}`, spec)).perplexity;
      };
      await run('mask alone', {});
      const before = await perplexityOf('mask alone');
      for (const [name, changes] of kinds) {
        const report = await run(name, changes);
        for (const { name: projection, actual, repair, rows, columns, record } of report.projections) {
          expect({ projection, better: repair!.errorAfter < repair!.errorBefore }).toEqual({ projection, better: true });
          expect(Math.abs(actual - sparsity)).toBeLessThan(0.01);
          expect(actual).toBeCloseTo((record?.dropped ?? 0) / (rows * columns), 12);
        }
        await expectZerosOfMasks(join(folder, name), report);
        expect(await perplexityOf(name)).toBeLessThan(before);
      }
    }));
});

/** The zeros of each pruned projection are what the report says was dropped, and kept weights differ from the input's. */
async function expectZerosOfMasks(directory: string, report: PruneReport): Promise<void> {
  const pruned = await openCheckpoint(directory);
  const dense = await openCheckpoint(modelPath(MODEL));
  try {
    for (const { name, record } of report.projections) {
      const [after, before] = await Promise.all([pruned.readTensor(`${name}.weight`), dense.readTensor(`${name}.weight`)]);
      const values = new Uint16Array(after.buffer, after.byteOffset, after.byteLength / 2);
      const zeros = values.reduce((sum, value) => sum + (value === 0 ? 1 : 0), 0);
      // A repaired weight may round to 0.
      expect(zeros).toBeGreaterThanOrEqual(record!.dropped);
      expect(zeros).toBeLessThan(record!.dropped * 1.001 + 2);
      const originals = new Uint16Array(before.buffer, before.byteOffset, before.byteLength / 2);
      expect(values.some((value, index) => value !== 0 && value !== originals[index])).toBe(true);
    }
  } finally {
    await pruned.close();
    await dense.close();
  }
}
