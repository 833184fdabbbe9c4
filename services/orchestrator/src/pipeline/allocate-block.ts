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
  readonly samples: number;
  readonly options: AllocationOptions;
  readonly rowSparsities: RowSparsities;
  readonly crew: Crew;
  readonly resources: Resources;
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  readonly onProjection: () => void;
}

/**
 * Allocates the rows of projections of a block, which are dealt out to the nodes, the costliest first. In network order.
 */
export async function allocateBlock(work: AllocateBlockOptions, signal: AbortSignal): Promise<AllocatedProjection[]> {
  const { block, projections, targets, crew, resources, prepare, onProjection } = work;
  const prefix = `jobs/${work.jobId}/statistics/${block.index}/`;
  for (const { site, meanSquares, lastInputs } of work.statistics) {
    resources.publishBytes(`${prefix}${site}/mean-squares`, meanSquares);
    resources.publishBytes(`${prefix}${site}/last-inputs`, lastInputs);
  }
  const cost = ({ rows, columns }: PlannedProjection): number => projectionCost(rows, columns, work.samples);
  const costliestFirst = [...projections].sort((left, right) => cost(right) - cost(left));
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
        samples: work.samples,
        columns,
        meanSquaresResource: `${prefix}${site}/mean-squares`,
        lastInputsResource: `${prefix}${site}/last-inputs`,
      },
    };
    const answer = await member.allocateRows(request, rows * Math.ceil(columns / 8), linked);
    allocated.set(name, { projection, ...answer });
    onProjection();
  };

  try {
    await crew.deal(
      costliestFirst,
      async (member, projection, linked) => {
        await prepare(member, linked);
        const attributes = { [Attribute.NODE]: member.node.name, [Attribute.PROJECTION]: projection.name };
        await withSpan(SpanName.ALLOCATE, { attributes }, () => allocate(member, projection, linked));
      },
      signal,
    );
  } finally {
    resources.withdraw(prefix);
  }
  return projections.map((projection) => allocated.get(projection.name)!);
}
