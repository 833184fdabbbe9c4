import { projectionCost, type PlannedBlock, type PlannedProjection, type ProjectionTargets, type ReducedSite } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { AllocationOptions } from '@secateur/proto/allocation';
import type { AllocatedRows } from '@secateur/proto/kernel_service';
import type { Resources } from '../api/resources.js';
import type { Crew } from '../scheduler/crew.js';
import type { RowSparsities } from '../planner/row-sparsities.js';
import type { NodeSession } from '../scheduler/node-session.js';

/** How one projection was pruned. */
export interface AllocatedProjection {
  readonly projection: PlannedProjection;
  readonly rows: AllocatedRows;
  /** Rows bit-packed, least significant bit first, 1 = dropped, each row padded to bytes. */
  readonly mask: Buffer;
}

export interface AllocateBlockOptions {
  readonly jobId: string;
  readonly block: PlannedBlock;
  /** Those of the block that are pruned, in network order. */
  readonly projections: readonly PlannedProjection[];
  readonly targets: ProjectionTargets;
  readonly statistics: readonly ReducedSite[];
  readonly options: AllocationOptions;
  readonly rowSparsities: RowSparsities;
  readonly crew: Crew;
  readonly resources: Resources;
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  readonly onProjection: () => void;
}

/**
 * Allocates the rows of projections of a block. The costliest go first and each node takes the next when it is free, so faster
 * nodes do more; what a lost node had begun is taken by another. In network order.
 */
export async function allocateBlock(work: AllocateBlockOptions, signal: AbortSignal): Promise<AllocatedProjection[]> {
  const { block, projections, targets, crew, resources, prepare, onProjection } = work;
  const prefix = `jobs/${work.jobId}/statistics/${block.index}/`;
  const samplesOf = new Map(work.statistics.map(({ site, samples }) => [site, samples]));
  for (const { site, meanSquares, qualityInputs } of work.statistics) {
    resources.publishBytes(`${prefix}${site}/mean-squares`, meanSquares);
    resources.publishBytes(`${prefix}${site}/quality-inputs`, qualityInputs);
  }
  const cost = ({ rows, columns, site }: PlannedProjection): number => projectionCost(rows, columns, samplesOf.get(site)!);
  const waiting = [...projections].sort((left, right) => cost(right) - cost(left));
  const allocated = new Map<string, AllocatedProjection>();

  const allocate = async (member: NodeSession, projection: PlannedProjection, linked: AbortSignal): Promise<void> => {
    const { name, role, rows, columns, site } = projection;
    const request = {
      shardId: block.shard.id,
      projection: role,
      projectionName: name,
      targetSparsity: targets.get(name)!,
      options: work.options,
      rowSparsities: work.rowSparsities.get(name) ?? new Uint8Array(0),
      statistics: {
        samples: samplesOf.get(site)!,
        columns,
        meanSquaresResource: `${prefix}${site}/mean-squares`,
        qualityInputsResource: `${prefix}${site}/quality-inputs`,
      },
    };
    const answer = await member.allocateRows(request, rows * Math.ceil(columns / 8), linked);
    allocated.set(name, { projection, ...answer });
    onProjection();
  };

  try {
    while (allocated.size < projections.length) {
      await crew.each(async (member, linked) => {
        await prepare(member, linked);
        for (let projection = waiting.shift(); projection !== undefined; projection = waiting.shift()) {
          const taken = projection;
          const attributes = { [Attribute.NODE]: member.node.name, [Attribute.PROJECTION]: taken.name };
          try {
            await withSpan(SpanName.ALLOCATE, { attributes }, () => allocate(member, taken, linked));
          } catch (error) {
            waiting.unshift(taken);
            throw error;
          }
        }
      }, signal);
    }
  } finally {
    resources.withdraw(prefix);
  }
  return projections.map((projection) => allocated.get(projection.name)!);
}
