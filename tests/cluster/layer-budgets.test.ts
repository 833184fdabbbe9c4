/** Jobs whose layers drop different shares, by real processes: the same bytes whatever the cluster looks like and whatever happens to it. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, afterAll, describe, expect, test } from '@jest/globals';
import {
  AlphaMetric,
  BudgetGranularity,
  JobState,
  LayerBudget,
  LayerBudgetOptions,
  ProjectionSelection,
  TokenSource,
  type JobEvent,
  type PruneSpec,
} from '@secateur/proto/job';
import type { PruneReport } from '@secateur/proto/pruning_service';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, temporaryFolder, withTemporaryFolder, type TemporaryFolder } from '../support/paths.js';

const MODEL = 'books-llama';
const CALIBRATION = fixturePath('calibration', `${MODEL}-calibration.safetensors`);
/** Four groups. */
const SAMPLES = 32;

const OWL = {
  layerBudget: LayerBudget.OWL,
  layerBudgetOptions: LayerBudgetOptions.fromPartial({ owl: { lambda: 0.08, threshold: 5 } }),
};
const ALPHA = {
  layerBudget: LayerBudget.ALPHA,
  layerBudgetOptions: LayerBudgetOptions.fromPartial({
    alpha: { metric: AlphaMetric.PEAK, epsilon: 0.1, granularity: BudgetGranularity.PROJECTION },
  }),
};
const OPTIMAL = {
  layerBudget: LayerBudget.OPTIMAL,
  layerBudgetOptions: LayerBudgetOptions.fromPartial({ optimal: { spread: 0.1, samples: 6 } }),
};
const given = (file: string) => ({ layerBudget: LayerBudget.GIVEN, layerBudgetOptions: LayerBudgetOptions.fromPartial({ file }) });

type Budget = Pick<PruneSpec, 'layerBudget' | 'layerBudgetOptions'>;

function specOf(output: string, budget: Budget, changes: Partial<PruneSpec> = {}) {
  const calibration = TokenSource.fromPartial({ path: CALIBRATION, samples: SAMPLES, sequenceLength: 256 });
  return pruneSpec(MODEL, output, { ...budget, calibration, ...changes });
}

function targetsOf({ projections }: PruneReport): Record<string, number> {
  return Object.fromEntries(projections.map(({ name, target }) => [name, target]));
}

let single: Cluster;
let triple: Cluster;
beforeAll(async () => {
  single = await Cluster.start({ nodes: 1 });
  triple = await Cluster.start({ nodes: 3 });
});
afterAll(async () => {
  await single[Symbol.asyncDispose]();
  await triple[Symbol.asyncDispose]();
});

describe.each([
  ['owl', OWL],
  ['alpha', ALPHA],
  ['optimal', OPTIMAL],
])('%s', (name, budget) => {
  let folder: TemporaryFolder;
  let computed: string;
  let report: PruneReport;
  beforeAll(async () => {
    folder = await temporaryFolder();
    computed = join(folder.path, 'computed');
    report = await prune(single.client, `${name}-computed`, specOf(computed, budget));
  });
  afterAll(() => folder[Symbol.asyncDispose]());

  test('gives the same bytes on 1 node and on 3, of which one is lost while the budget is computed', async () => {
    const outputs = [computed, join(folder.path, 'three'), join(folder.path, 'two')];
    await prune(triple.client, `${name}-three`, specOf(outputs[1]!, budget));
    await using faulty = await Cluster.start({ nodes: 3 });
    const lost: string[] = [];
    let killed = false;
    await prune(faulty.client, `${name}-two`, specOf(outputs[2]!, budget), ({ event }) => {
      if (event?.$case === 'nodeLost') lost.push(event.value.name);
      if (event?.$case !== 'progress' || event.value.step !== 'budget' || event.value.done === 0 || killed) return;
      killed = true;
      void faulty.nodes[2]?.signal('SIGKILL');
    });
    expect(killed).toBe(true);
    // A node that has found its eigenvalues by then is asked for nothing more.
    if (name !== 'alpha') expect(lost).toEqual(['node-2']);
    const hashes = await Promise.all(outputs.map(hashOutput));
    expect(Object.keys(hashes[0]!)).toContain('layer_budget.json');
    expect(hashes[1]).toEqual(hashes[0]);
    expect(hashes[2]).toEqual(hashes[0]);
  });

  test('leaves ratios that another job can be given, which then drops the same weights', async () => {
    expect(report.seconds['budget']).toBeGreaterThan(0);
    const file = join(computed, 'layer_budget.json');
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(targetsOf(report));
    expect(new Set(Object.values(targetsOf(report))).size).toBeGreaterThanOrEqual(name === 'owl' ? 4 : name === 'alpha' ? 28 : 10);
    const again = join(folder.path, 'again');
    const repeated = await prune(triple.client, `${name}-again`, specOf(again, given(file)));
    expect(repeated.seconds['budget']).toBeUndefined();
    expect(targetsOf(repeated)).toEqual(targetsOf(report));
    const [first, second] = await Promise.all([hashOutput(computed), hashOutput(again)]);
    expect(second).toEqual(first);
  });

  test('is not computed again by a job that goes on', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      const spec = specOf(output, budget);
      const jobId = `${name}-resumed`;
      const steps = async (onEvent: (event: JobEvent) => void, afterSequence: number): Promise<number> => {
        let last = afterSequence;
        for await (const event of single.client.watchJob(jobId, { afterSequence })) {
          last = event.sequence;
          onEvent(event);
        }
        return last;
      };
      await single.client.createJob({ jobId, spec });
      let cancelling: Promise<unknown> | undefined;
      const last = await steps(({ event }) => {
        // The first block is begun, so its budget is there, and nothing else.
        if (event?.$case === 'progress' && event.value.step === 'collect') cancelling ??= single.client.cancelJob(jobId);
      }, 0);
      await cancelling;
      expect((await single.client.getJob(jobId)).state).toBe(JobState.CANCELLED);
      await single.client.createJob({ jobId, spec });
      const seen = new Set<string>();
      await steps(({ event }) => {
        if (event?.$case === 'progress') seen.add(event.value.step);
      }, last);
      expect((await single.client.getJob(jobId)).state).toBe(JobState.SUCCEEDED);
      expect(seen).toContain('collect');
      expect(seen).not.toContain('budget');
    }));
});

test('projections and blocks that are left out count nowhere', () =>
  withTemporaryFolder(async (folder) => {
    const selection = ProjectionSelection.fromPartial({ only: ['mlp'], skip: ['layers\\.1\\..*gate'], skipLayers: [3] });
    for (const [name, budget] of [
      ['owl', OWL],
      ['alpha', ALPHA],
      ['optimal', OPTIMAL],
    ] as const) {
      const report = await prune(triple.client, `${name}-selected`, specOf(join(folder, name), budget, { selection }));
      expect(report.projections).toHaveLength(8);
      const byBlock = [0, 1, 2].map((block) => report.projections.filter((projection) => projection.name.includes(`layers.${block}.`)));
      const weights = (projections: PruneReport['projections'], share: (target: number) => number): number =>
        projections.reduce((sum, { rows, columns, target }) => sum + share(target) * rows * columns, 0);
      // OWL's mean is that of the blocks, the others' that of all weights.
      const mean =
        name === 'owl'
          ? byBlock.reduce((sum, projections) => sum + projections[0]!.target, 0) / 3
          : weights(report.projections, (target) => target) / weights(report.projections, () => 1);
      expect(mean).toBeCloseTo(0.7, 10);
    }
  }));

test('more than a layer can drop is refused with what would be possible', () =>
  withTemporaryFolder(async (folder) => {
    const layerBudgetOptions = LayerBudgetOptions.fromPartial({ owl: { lambda: 0.4, threshold: 5 } });
    await expect(prune(single.client, 'too-much', specOf(join(folder, 'pruned'), { ...OWL, layerBudgetOptions }))).rejects.toThrow(
      /layer_budget_options\.owl\.lambda would have model\.layers\.\d drop .* % of its weights; for this model it must be below 0\.\d+/,
    );
  }));

test('secateur plan shows the shares that are known, and says what computes the others', () =>
  withTemporaryFolder(async (folder) => {
    const args = ['plan', '--model', modelPath(MODEL), '--calibration', CALIBRATION, '--sparsity', '0.7', '--nodes', '1'];
    const file = join(folder, 'ratios.json');
    await writeFile(file, JSON.stringify({ 0: 0.6, 1: 0.7, 2: 0.7, 'model.layers.3': 0.8 }));
    const known = await runCommand([...args, '--layer-budget', file, '--json']);
    expect(known.stderr).toBe('');
    const plan = JSON.parse(known.stdout) as { layerBudget: string; targetsKnown: boolean; shards: { sparsity: number }[] };
    expect(plan).toMatchObject({ layerBudget: 'given', targetsKnown: true });
    expect(plan.shards.slice(1).map(({ sparsity }) => sparsity)).toEqual([0.6, 0.7, 0.7, 0.8]);
    for (const [name, what] of [
      ['owl', 'the outliers of its scores'],
      ['alpha', 'the spectra of its weights'],
      ['optimal', 'what it loses when its projections are pruned one at a time'],
    ] as const) {
      const { stdout } = await runCommand([...args, '--layer-budget', name]);
      expect(stdout).toContain('computed from the model when the job runs, by ' + what);
      expect(stdout).toMatch(/Matrix products: budget \d/);
      expect(stdout).toContain('It fits');
    }
    const wrong = await runCommand([...args, '--layer-budget', 'owls', '--owl-lambda', '0.6', '--pattern', '2:4']);
    expect(wrong.exitCode).toBe(2);
    for (const text of ['owls does not exist', '--owl-lambda', '--sparsity must be 0.5', '--layer-budget must be uniform']) {
      expect(wrong.stderr).toContain(text);
    }
  }));
