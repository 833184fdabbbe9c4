/** Swapped masks: the error of the output falls, kept weights stay what they were, and the cluster changes no byte. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Repair, RepairTargets } from '@secateur/proto/allocation';
import { TokenSource } from '@secateur/proto/job';
import type { PruneReport } from '@secateur/proto/pruning_service';
import { openCheckpoint } from '@secateur/checkpoint';
import { Cluster, type ClusterOptions } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-qwen2';

function calibration(samples: number): TokenSource {
  return TokenSource.fromPartial({
    path: fixturePath('calibration', `${MODEL}-calibration.safetensors`),
    samples,
    sequenceLength: 256,
  });
}

/** More groups than nodes, and a last one of a single sample. */
const SWAPPED = { sparsity: 0.8, calibration: calibration(25), swap: { most: 0 } };
const FITTED = { ...SWAPPED, repair: { method: Repair.FIT, damping: 0, iterations: 0, targets: RepairTargets.OWN } };

interface Pruned {
  readonly report: PruneReport;
  readonly hashes: Record<string, string>;
}

async function pruneOn(changes: Parameters<typeof pruneSpec>[2], options: ClusterOptions): Promise<Pruned> {
  return withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start(options);
    const output = join(folder, 'pruned');
    const report = await prune(cluster.client, 'job', pruneSpec(MODEL, output, changes));
    return { report, hashes: await hashOutput(output) };
  });
}

function expectFewerErrors({ projections }: PruneReport): void {
  for (const { name, swap, record, rows, columns, actual } of projections) {
    expect({ name, fewer: swap!.errorAfter < swap!.errorBefore, any: swap!.swaps > 0 }).toEqual({ name, fewer: true, any: true });
    expect(actual).toBeCloseTo((record?.dropped ?? 0) / (rows * columns), 12);
    expect(Math.abs(actual - 0.8)).toBeLessThan(0.01);
  }
  const mean = (errorOf: (of: (typeof projections)[number]) => number): number =>
    projections.reduce((sum, projection) => sum + errorOf(projection), 0) / projections.length;
  expect(mean(({ swap }) => swap!.errorAfter)).toBeLessThan(0.8 * mean(({ swap }) => swap!.errorBefore));
}

describe('swapped masks', () => {
  test('with a fit are the same on 1 and 3 nodes, and each projection errs less', async () => {
    const one = await pruneOn(FITTED, { nodes: 1, threads: 2 });
    const three = await pruneOn(FITTED, { nodes: 3 });
    expect(three.hashes).toEqual(one.hashes);
    expectFewerErrors(one.report);
    // What is fitted to is the swapped mask.
    for (const { swap, repair } of one.report.projections) expect(repair!.errorBefore).toBe(swap!.errorAfter);
  });

  test('alone leave kept weights as they are, and need two samples, of which data may turn out to have one', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 1 });
      const output = join(folder, 'pruned');
      const report = await prune(cluster.client, 'alone', pruneSpec(MODEL, output, SWAPPED));
      expectFewerErrors(report);
      expect(report.projections.every(({ repair }) => repair === undefined)).toBe(true);
      await expectKeptWeights(output);
      const path = join(folder, 'one.safetensors');
      await writeIds(path, 1, 64);
      const one = { ...SWAPPED, calibration: TokenSource.fromPartial({ path }) };
      await expect(prune(cluster.client, 'one', pruneSpec(MODEL, join(folder, 'other'), one))).rejects.toThrow(
        'swaps hold some samples out',
      );
    }));
});

/** Ids of some samples. */
async function writeIds(path: string, samples: number, length: number): Promise<void> {
  const ids = Int32Array.from({ length: samples * length }, (_, index) => index % 100);
  const tensor = { dtype: 'I32', shape: [samples, length], data_offsets: [0, ids.byteLength] };
  const header = Buffer.from(JSON.stringify({ input_ids: tensor }));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.byteLength));
  await writeFile(path, Buffer.concat([size, header, Buffer.from(ids.buffer)]));
}

/** Weights are what they were in the input, or 0. */
async function expectKeptWeights(directory: string): Promise<void> {
  const pruned = await openCheckpoint(directory);
  const dense = await openCheckpoint(modelPath(MODEL));
  try {
    const name = 'model.layers.1.self_attn.q_proj.weight';
    const [after, before] = await Promise.all([pruned.readTensor(name), dense.readTensor(name)]);
    const values = new Uint16Array(after.buffer, after.byteOffset, after.byteLength / 2);
    const originals = new Uint16Array(before.buffer, before.byteOffset, before.byteLength / 2);
    expect(values.every((value, index) => value === 0 || value === originals[index])).toBe(true);
  } finally {
    await pruned.close();
    await dense.close();
  }
}
