import { assignGroups, SecateurError, type PlannedShard } from '@secateur/core';
import type { JobPlan, NodePlan, ShardPlan } from '@secateur/proto/plan';
import type { JobSpec } from '@secateur/proto/job';
import type { PoolNode } from '../scheduler/node-pool.js';
import { countFlops } from './count-flops.js';
import { describeLayout, openJobInput, type JobInput } from './job-plan.js';
import { storedBytes, workloadOf, workOf, type JobWork } from './workload.js';

const PLAN_TIMEOUT_MS = 30_000;

/** Tells what a job would do on these nodes. The spec has its defaults and paths that may be read. */
export async function outlineJob(
  spec: JobSpec,
  nodes: readonly PoolNode[],
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<JobPlan> {
  const work = workOf(spec.kind);
  const input = await openJobInput({ ...work, allowedRoots }, signal);
  try {
    const { model, tokens, groups } = input;
    const shares = assignGroups(
      groups.map(({ index }) => index),
      nodes.map(() => 0),
    );
    const shards = describeShards(input, work);
    return {
      architecture: model.architecture,
      weights: shards.reduce((sum, { weights }) => sum + weights, 0),
      samples: tokens.samples,
      sequenceLength: tokens.sequenceLength,
      groups: groups.length,
      shards,
      nodes: await Promise.all(nodes.map((node, slot) => planNode(node, input, work, shares[slot]?.length ?? 0, signal))),
      flops: countFlops(input, work.use),
    };
  } finally {
    await input.checkpoint.close();
  }
}

function describeShards(input: JobInput, { use, sparsity }: JobWork): ShardPlan[] {
  const { model } = input;
  const describe = (shard: PlannedShard, weights: number): ShardPlan => ({
    id: shard.id,
    bytes: storedBytes(describeLayout(input, shard)),
    weights,
    sparsity: weights === 0 ? 0 : sparsity,
  });
  return [
    describe(model.embedding, 0),
    ...model.blocks.map(({ shard, projections }) =>
      describe(
        shard,
        projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
      ),
    ),
    ...(use === 'evaluate' ? [describe(model.head, 0)] : []),
  ];
}

/** A node without a group is left out of the work, and so needs nothing. */
async function planNode(node: PoolNode, input: JobInput, work: JobWork, groups: number, signal: AbortSignal): Promise<NodePlan> {
  const { address, name } = node;
  if (groups === 0) return { address, name, groups, memory: undefined, fits: true, reason: '' };
  const request = { architecture: input.model.architecture, compute: work.compute, workload: workloadOf(input, work, groups) };
  try {
    const { plan: memory } = await node.kernel.planSession(request, { timeoutMs: PLAN_TIMEOUT_MS, signal });
    const fits = memory !== undefined && memory.engineBytes <= memory.availableBytes;
    return { address, name, groups, memory, fits, reason: '' };
  } catch (error) {
    if (signal.aborted || !(error instanceof SecateurError)) throw error;
    return { address, name, groups, memory: undefined, fits: false, reason: error.message };
  }
}
