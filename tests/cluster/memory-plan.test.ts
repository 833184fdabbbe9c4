/** Memory that was planned before a job, and what its nodes really took. */
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { JobPlanJson } from '@secateur/core';
import { Allocation, AllocationOptions, Score } from '@secateur/proto/allocation';
import { JobState } from '@secateur/proto/job';
import type { JobPlan, NodePlan } from '@secateur/proto/plan';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';

/** JavaScript's own memory varies from run to run, and with small models it is most of all. */
const TOLERANCE = 0.2;

/** A search that takes long enough for things to happen meanwhile. */
const SLOW = AllocationOptions.fromPartial({ score: Score.WANDA, allocation: Allocation.TRIM, iterations: 1000 });

const memoryOf = ({ memory }: NodePlan): NonNullable<NodePlan['memory']> => {
  if (memory === undefined) throw new Error('no plan of memory');
  return memory;
};

describe('planning', () => {
  test('tells shards, groups, operations and memory without an output folder, and the job takes that memory', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 2 });
      const plan: JobPlan = await cluster.client.planJob(pruneSpec('books-qwen2', ''));
      expect(plan.shards.map(({ id }) => id)).toEqual(['embedding', 'block/0', 'block/1', 'block/2', 'block/3']);
      expect(plan.weights).toBe(plan.shards.reduce((sum, { weights }) => sum + weights, 0));
      expect(plan.nodes.map(({ groups }) => groups).reduce((sum, groups) => sum + groups, 0)).toBe(plan.groups);
      // Two operations per weight and token; nobody reads what the last block gives.
      const tokens = plan.samples * plan.sequenceLength;
      expect(plan.flops['propagate']).toBe(2 * tokens * plan.weights * (3 / 4));
      expect(plan.flops['allocate']).toBe(2 * plan.samples * plan.weights);
      for (const node of plan.nodes) {
        const { engine, engineBytes, process, residentBytes } = memoryOf(node);
        expect(node.fits).toBe(true);
        expect(engine.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(engineBytes);
        expect(process.reduce((sum, { bytes }) => sum + bytes, engineBytes)).toBe(residentBytes);
      }
      const report = await prune(cluster.client, 'planned', pruneSpec('books-qwen2', join(folder, 'pruned')));
      for (const { plannedResidentBytes, peakResidentBytes } of report.nodes) {
        expect(peakResidentBytes / plannedResidentBytes).toBeGreaterThan(1 - TOLERANCE);
        expect(peakResidentBytes / plannedResidentBytes).toBeLessThan(1 + TOLERANCE);
      }
    }));

  test('a job that does not fit its nodes is told so by the plan, and refused before any work', () =>
    withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes: 1, memory: '20MiB' });
      const output = join(folder, 'pruned');
      const [node] = (await cluster.client.planJob(pruneSpec('books-qwen2', output))).nodes;
      expect(node).toMatchObject({ fits: false, reason: '' });
      await expect(prune(cluster.client, 'too-large', pruneSpec('books-qwen2', output))).rejects.toThrow(
        new RegExp(
          `node-0 .* needs ${node?.memory?.engineBytes} bytes here .* hidden states .* ${20 * 2 ** 20} of the memory budget .* Use more nodes`,
        ),
      );
    }));
});

test('a node that comes back with too little memory is left out, and the job goes on', () =>
  withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const { client } = cluster;
    const spec = pruneSpec('books-qwen2', join(folder, 'pruned'), { options: SLOW });
    await client.createJob({ jobId: 'shrunk', spec });
    await eventually(async () => (await client.getJob('shrunk')).finishedLayers > 0, 'a layer is finished');
    const lost = (await client.listNodes()).find(({ description }) => description?.name === 'node-1');
    if (lost === undefined) throw new Error('node-1 is not listed');
    const healthy = async (): Promise<boolean> => (await client.listNodes()).some((node) => node.address === lost.address && node.healthy);
    await cluster.nodes[1]?.signal('SIGKILL');
    await eventually(async () => !(await healthy()), 'the node is lost');
    const small = await ServiceProcess.start(['node', '--listen', lost.address, '--memory', '1MiB', '--backend', 'cpu']);
    try {
      await eventually(healthy, 'the node is healthy again');
      expect((await client.getJob('shrunk')).state).toBe(JobState.RUNNING);
      expect((await client.waitForJob('shrunk')).state).toBe(JobState.SUCCEEDED);
    } finally {
      await small.process.signal('SIGTERM');
    }
  }));

test('secateur plan shows the plan to people and as JSON', async () => {
  const calibration = fixturePath('calibration', 'books-opt-calibration.safetensors');
  const args = ['plan', '--model', modelPath('books-opt'), '--calibration', calibration, '--sparsity', '0.8', '--nodes', '1'];
  const shown = await runCommand(args);
  expect(shown.exitCode).toBe(0);
  for (const text of ['embedding', 'block/0 … block/', '80.00 %', 'hidden states', 'resident memory of the process', 'It fits']) {
    expect(shown.stdout).toContain(text);
  }
  expect(shown.stdout).toMatch(/Time: about \d/);
  const { exitCode, stdout } = await runCommand([...args, '--json']);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ groups: 16, nodes: [{ name: 'node-0', groups: 16, fits: true, reason: null }] });
  // A repair towards the dense model takes longer.
  const ofBest = JSON.parse((await runCommand([...args, '--preset', 'best', '--json'])).stdout) as JobPlanJson;
  const { estimatedSeconds, flops } = JSON.parse(stdout) as JobPlanJson;
  expect(ofBest.targetsKnown).toBe(false);
  expect(ofBest.flops).toMatchObject({ collect: expect.any(Number), gram: expect.any(Number), repair: expect.any(Number) });
  expect(ofBest.flops['propagate']).toBe(2 * flops['propagate']!);
  expect(estimatedSeconds).toBeGreaterThan(0);
  // What prune would refuse, plan does too.
  expect((await runCommand([...args, '--out', modelPath('books-opt')])).stderr).toContain('--out');
  expect((await runCommand(['plan', '--model', '/nowhere', '--calibration', calibration, '--sparsity', '0.8'])).exitCode).toBe(2);
});
