import {
  meanTarget,
  plannedTensors,
  projectionName,
  SecateurError,
  type ModelPlan,
  type PlannedProjection,
  type PlannedShard,
} from '@secateur/core';
import type { JobPlan, MemoryPlan, NodePlan, ShardPlan } from '@secateur/proto/plan';
import { LayerBudget, type JobSpec } from '@secateur/proto/job';
import { Compute } from '@secateur/proto/model';
import type { PoolNode } from '../scheduler/node-pool.js';
import { countFlops } from './count-flops.js';
import { describeLayout, sizeOf, type InputOutline } from './job-plan.js';
import { outlineInput } from './outline-input.js';
import { groupsOf, shareGroups, storedBytes, workloadOf, workOf, type JobWork } from './workload.js';

const PLAN_TIMEOUT_MS = 30_000;
/** What a job takes, as a multiple of its products alone: attention, sorting, reading and writing come on top (docs/performance.md). */
const MORE_THAN_PRODUCTS = 1.5;

/** Tells what a job would do on these nodes. The spec has its defaults and paths that may be read. */
export async function outlineJob(
  spec: JobSpec,
  nodes: readonly PoolNode[],
  allowedRoots: readonly string[],
  signal: AbortSignal,
): Promise<JobPlan> {
  const { input: request, works } = workOf(spec.kind);
  const input = await outlineInput({ ...request, allowedRoots }, signal);
  const { model } = input;
  const shards = describeShards(input, works);
  const flops = countFlops(input, works);
  const planned = await Promise.all(nodes.map((node, slot) => planNode(node, input, works, { slot, slots: nodes.length }, signal)));
  const speeds = new Map(nodes.map((node) => [node.address, productSpeed(node, works[0]!)]));
  return {
    architecture: model.architecture,
    weights: shards.reduce((sum, { weights }) => sum + weights, 0),
    ...sizeOf(input),
    groups: groupsOf(input, works[0]!).length,
    shards,
    nodes: planned,
    flops,
    estimatedSeconds: estimateSeconds(flops, planned, speeds),
    parameters: countParameters(model),
    fromConfigAlone: !input.hasWeights,
    layerBudget: spec.kind?.$case === 'prune' ? spec.kind.value.layerBudget : LayerBudget.UNSPECIFIED,
  };
}

function productSpeed({ description }: PoolNode, { compute }: JobWork): number {
  // Only GPUs compute so, and none tells its speed.
  if (compute === Compute.F16) return 0;
  const engine = description?.engine;
  return (compute === Compute.BF16 ? engine?.bf16ProductSpeed : engine?.productSpeed) ?? 0;
}

/** By the node that takes longest for its groups; 0 where that is not known. */
function estimateSeconds(flops: Readonly<Record<string, number>>, nodes: readonly NodePlan[], speeds: ReadonlyMap<string, number>): number {
  const busy = nodes.filter(({ groups }) => groups > 0);
  const groups = busy.reduce((sum, node) => sum + node.groups, 0);
  const shares = busy.map((node) => node.groups / groups / speeds.get(node.address)!);
  if (busy.length === 0 || !shares.every(Number.isFinite)) return 0;
  const all = Object.values(flops).reduce((sum, count) => sum + count, 0);
  return MORE_THAN_PRODUCTS * all * Math.max(...shares);
}

/** Of all tensors; a tied head counts once. */
function countParameters(model: ModelPlan): number {
  return plannedTensors(model).reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}

function describeShards({ model, targets }: InputOutline, works: readonly JobWork[]): ShardPlan[] {
  const describe = (shard: PlannedShard, projections: readonly PlannedProjection[]): ShardPlan => ({
    id: shard.id,
    bytes: storedBytes(describeLayout(shard)),
    weights: projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
    sparsity: projections.length === 0 ? 0 : meanTarget(projections, targets),
    projections: projections.map((projection) => ({
      name: projectionName(projection),
      rows: projection.rows,
      columns: projection.columns,
      target: targets.get(projection.name) ?? 0,
    })),
  });
  return [
    describe(model.embedding, []),
    ...model.blocks.map(({ shard, projections }) => describe(shard, projections)),
    ...(works.some(({ use }) => use === 'measure') ? [describe(model.head, [])] : []),
  ];
}

/**
 * The kinds of work of a job come one after the other, so a node needs as much as the one that takes the most. A node without a group is left
 * out of the work, and so needs nothing; eigenvalues need none.
 */
async function planNode(
  node: PoolNode,
  input: InputOutline,
  works: readonly JobWork[],
  { slot, slots }: { readonly slot: number; readonly slots: number },
  signal: AbortSignal,
): Promise<NodePlan> {
  const { address, name } = node;
  const shares = works.map((work) => ({ work, kept: shareGroups(groupsOf(input, work), slots)[slot] ?? [] }));
  const groups = shares[0]?.kept.length ?? 0;
  let memory: MemoryPlan | undefined;
  try {
    for (const { work, kept } of shares.filter((share) => share.kept.length > 0 || share.work.use === 'find eigenvalues')) {
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
