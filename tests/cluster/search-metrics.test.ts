/** A search by other metrics than the default ones, through real processes. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Allocation, LayerQuality, RowQuality } from '@secateur/proto/allocation';
import { TokenSource } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-llama';
const CALIBRATION = fixturePath('calibration', `${MODEL}-calibration.safetensors`);

describe('a search by the mean absolute error, with rows by their squared error', () => {
  test('gives the same bytes on any cluster, better outputs than uniform rows, and a report in its metric', () =>
    withTemporaryFolder(async (folder) => {
      const pruneOn = async (nodes: number, threads: number) => {
        await using cluster = await Cluster.start({ nodes, threads });
        const output = join(folder, `pruned-${nodes}`);
        const report = await prune(
          cluster.client,
          'job',
          pruneSpec(MODEL, output, {
            layerQuality: LayerQuality.MAE,
            rowQuality: RowQuality.MSE,
            calibration: TokenSource.fromPartial({ path: CALIBRATION, samples: 24, sequenceLength: 64 }),
          }),
        );
        return { report, hashes: await hashOutput(output), output };
      };
      const one = await pruneOn(1, 2);
      const two = await pruneOn(2, 1);
      expect(two.hashes).toEqual(one.hashes);

      const { projections } = one.report;
      for (const { record } of projections) {
        expect(record!.baselineQuality).toBeLessThan(0);
        expect(record!.bestQuality).toBeGreaterThanOrEqual(record!.baselineQuality);
      }
      const improved = projections.filter(({ record }) => record!.bestQuality > record!.baselineQuality);
      expect(improved.length).toBeGreaterThan(projections.length / 2);
      const written = JSON.parse(await readFile(join(one.output, 'secateur.json'), 'utf8')) as { config: object; projections: object[] };
      expect(written.config).toMatchObject({ layerQuality: 'mae', rowQuality: 'mse' });
      expect(written.projections[0]).toMatchObject({ bestQuality: projections[0]!.record!.bestQuality });
    }));

  test('is refused where nothing is searched', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 1 });
      const spec = pruneSpec(MODEL, join(folder, 'pruned'), { allocation: Allocation.UNIFORM, layerQuality: LayerQuality.MAE });
      await expect(prune(cluster.client, 'job', spec)).rejects.toThrow(/prune\.options\.layer_quality must be left out unless/);
    }));
});

describe('the command', () => {
  const args = ['--model', modelPath(MODEL), '--calibration', CALIBRATION, '--sparsity', '0.7', '--nodes', '1'];

  test('plans with a metric, and knows only those there are', async () => {
    const planned = await runCommand(['plan', ...args, '--samples', '24', '--layer-quality', 'psnr-sample', '--row-quality', 'psnr']);
    expect(planned).toMatchObject({ exitCode: 0 });
    const unknown = await runCommand(['plan', ...args, '--layer-quality', 'cosim_flat']);
    expect(unknown.exitCode).toBe(2);
    expect(unknown.stderr).toContain('cosim-flat');
    const elsewhere = await runCommand(['plan', ...args, '--allocation', 'uniform', '--row-quality', 'mse']);
    expect(elsewhere.exitCode).toBe(2);
    expect(elsewhere.stderr).toContain('--row-quality must be left out unless the allocation is trim');
  });
});
