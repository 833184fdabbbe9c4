import { SecateurError, type PlannedShard } from '@secateur/core';
import type { JobPlan, MemoryPlan, NodePlan, ShardPlan } from '@secateur/proto/plan';
import type { JobSpec } from '@secateur/proto/job';
import type { PoolNode } from '../scheduler/node-pool.js';
import { countFlops } from './count-flops.js';
import { describeLayout, openJobInput, sizeOf, type JobInput } from './job-plan.js';
import { loadRowSparsities } from './row-sparsities.js';
import { groupsOf, shareGroups, storedBytes, workloadOf, workOf, type JobWork } from './workload.js';

const PLAN_TIMEOUT_MS = 30_000;

/** Tells what a job would do on these nodes. The spec has its defaults and paths that may be read. */
export async function outlineJob(
  spec: JobSpec,
  nodes: readonly PoolNode[],
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<JobPlan> {
  const { input: request, works } = workOf(spec.kind);
  const input = await openJobInput({ ...request, allowedRoots }, signal);
  try {
    if (spec.kind?.$case === 'prune' && spec.kind.value.rowSparsities !== '') {
      await loadRowSparsities(spec.kind.value.rowSparsities, input.model, spec.kind.value.sparsity, allowedRoots);
    }
    const shards = describeShards(input, works);
    const groups = groupsOf(input, works[0]!);
    return {
      architecture: input.model.architecture,
      weights: shards.reduce((sum, { weights }) => sum + weights, 0),
      ...sizeOf(input),
      groups: groups.length,
      shards,
      nodes: await Promise.all(nodes.map((node, slot) => planNode(node, input, works, { slot, slots: nodes.length }, signal))),
      flops: countFlops(input),
    };
  } finally {
    await input.checkpoint.close();
  }
}

function describeShards(input: JobInput, works: readonly JobWork[]): ShardPlan[] {
  const { model } = input;
  const { sparsity } = works[0]!;
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
    ...(works.some(({ use }) => use === 'measure') ? [describe(model.head, 0)] : []),
  ];
}

/**
 * The kinds of work of a job come one after the other, so a node needs as much as the one that takes the most. A node without a group is left
 * out of the work, and so needs nothing.
 */
async function planNode(
  node: PoolNode,
  input: JobInput,
  works: readonly JobWork[],
  { slot, slots }: { readonly slot: number; readonly slots: number },
  signal: AbortSignal,
): Promise<NodePlan> {
  const { address, name } = node;
  const shares = works.map((work) => ({ work, kept: shareGroups(groupsOf(input, work), slots)[slot] ?? [] }));
  const groups = shares[0]?.kept.length ?? 0;
  let memory: MemoryPlan | undefined;
  try {
    for (const { work, kept } of shares.filter((share) => share.kept.length > 0)) {
      const { compute, hiddenStates } = work;
      const request = { architecture: input.model.architecture, compute, hiddenStates, workload: workloadOf(input, work, kept) };
      const { plan } = await node.kernel.planSession(request, { timeoutMs: PLAN_TIMEOUT_MS, signal });
      if (plan !== undefined && plan.engineBytes > (memory?.engineBytes ?? 0)) memory = plan;
    }
    const fits = memory === undefined || memory.engineBytes <= memory.availableBytes;
    return { address, name, groups, memory, fits, reason: '' };
  } catch (error) {
    if (signal.aborted || !(error instanceof SecateurError)) throw error;
    return { address, name, groups, memory: undefined, fits: false, reason: error.message };
  }
}
