import { countDropped, findSetPadding } from '@secateur/checkpoint';
import {
  allocationsAtOnce,
  loadHasher,
  meanSquaresOfPasses,
  projectionCost,
  SecateurError,
  type PlannedBlock,
  type PlannedProjection,
  type ProjectionTargets,
  type ReducedSite,
} from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { AllocationOptions, RepairOptions, SwapOptions } from '@secateur/proto/allocation';
import type { AllocatedRows, ReducedStatistics } from '@secateur/proto/kernel_service';
import type { InputSite } from '@secateur/proto/statistics';
import type { Resources } from '@secateur/rpc';
import type { Crew } from '../scheduler/crew.js';
import { sumDropped } from '../output/sum-dropped.js';
import { describeLayout } from '../planner/job-plan.js';
import type { RowSparsities } from '../planner/row-sparsities.js';
import type { NodeSession } from '../scheduler/node-session.js';
import type { GramMatrices } from './gram-matrices.js';

/** How one projection was pruned. */
export interface AllocatedProjection {
  readonly projection: PlannedProjection;
  readonly rows: AllocatedRows;
  /** Rows bit-packed, least significant bit first, 1 = dropped, each row padded to bytes. */
  readonly mask: Buffer;
  /** [rows, columns] in the stored type, dropped ones +0; undefined where the kept weights stay as they are. */
  readonly weights: Buffer | undefined;
  /** Of what nodes apply: the weights, or the mask where there are none. */
  readonly digest: string;
}

export interface AllocateBlockOptions {
  readonly jobId: string;
  readonly block: PlannedBlock;
  /** Some of the block's that are pruned, in network order. */
  readonly projections: readonly PlannedProjection[];
  readonly targets: ProjectionTargets;
  /** Of the inputs of those projections at least; of every pass that collected them, in order. */
  readonly statistics: ReadonlyMap<InputSite, readonly ReducedSite[]>;
  readonly samples: number;
  /** Of each sample, in the statistics; 0 for its last inputs. */
  readonly sketches: number;
  readonly options: AllocationOptions;
  readonly rowSparsities: RowSparsities;
  readonly repair: RepairOptions | undefined;
  readonly swap: SwapOptions | undefined;
  readonly changesKeptWeights: boolean;
  /** Of the inputs of those projections; undefined where nothing is repaired or swapped. */
  readonly grams: GramMatrices | undefined;
  readonly crew: Crew;
  readonly resources: Resources;
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  readonly onProjection: (allocated: AllocatedProjection) => void;
}

/**
 * Allocates the rows of projections of a block, which are dealt out to the nodes, the costliest first. In network order.
 */
export async function allocateBlock(work: AllocateBlockOptions, signal: AbortSignal): Promise<AllocatedProjection[]> {
  const { block, projections, targets, crew, resources, prepare, onProjection } = work;
  const prefix = `jobs/${work.jobId}/statistics/${block.index}/`;
  const statistics = publishStatistics(work, prefix);
  const cost = ({ rows, columns }: PlannedProjection): number => projectionCost(rows, columns, work.samples);
  const costliestFirst = [...projections].sort((left, right) => cost(right) - cost(left));

  const allocate = async (member: NodeSession, projection: PlannedProjection, linked: AbortSignal): Promise<AllocatedProjection> => {
    const { name, role, rows, columns, site } = projection;
    const request = {
      shardId: block.shard.id,
      projection: role,
      projectionName: name,
      targetSparsity: targets.get(name)!,
      options: work.options,
      rowSparsities: work.rowSparsities.get(name) ?? new Uint8Array(0),
      repair: work.repair,
      swap: work.swap,
      statistics: {
        samples: work.samples,
        sketches: work.sketches,
        columns,
        ...statistics.get(name)!,
        gramMatrix: undefined,
        heldOutGramMatrix: undefined,
        drift: undefined,
        ...work.grams?.of(site, member),
      },
    };
    const { bytes } = describeLayout(block.shard).tensors.find((tensor) => tensor.role === role)!;
    const expected = { maskBytes: rows * Math.ceil(columns / 8), weightsBytes: work.changesKeptWeights ? bytes : 0 };
    const answer = await member.allocateRows(request, expected, linked);
    const problem = problemOfMask(projection, answer);
    if (problem !== undefined) throw member.wrongAnswer(name, problem);
    const digest = (await loadHasher()).digest(answer.weights ?? answer.mask);
    return { projection, ...answer, digest };
  };

  try {
    const allocated = await crew.deal(
      costliestFirst,
      (member, projection, linked) => {
        const attributes = { [Attribute.NODE]: member.node.name, [Attribute.PROJECTION]: projection.name };
        return withSpan(SpanName.ALLOCATE, { attributes }, () => allocate(member, projection, linked));
      },
      {
        signal,
        begin: work.grams && ((ending) => work.grams!.ensure(ending)),
        atOnce: allocationsAtOnce({ usesGramMatrices: work.grams !== undefined }),
        prepare,
        costOf: cost,
        onDone: onProjection,
      },
    );
    const byName = new Map(allocated.map((projection) => [projection.projection.name, projection]));
    return projections.map(({ name }) => byName.get(name)!);
  } finally {
    resources.withdraw(prefix);
  }
}

/** What of a mask contradicts its shape or its record; undefined where nothing does. */
function problemOfMask(
  { name, rows, columns }: PlannedProjection,
  { mask, rows: { record, droppedPerRow, rowSparsities } }: Pick<AllocatedProjection, 'mask' | 'rows'>,
): string | undefined {
  if (rowSparsities.byteLength !== 4 * rows) return `${rowSparsities.byteLength} bytes of row sparsities for ${rows} rows`;
  const padded = findSetPadding(mask, columns);
  if (padded >= 0) return `a mask whose row ${padded} drops weights behind its last column`;
  try {
    const dropped = sumDropped(name, countDropped(mask, columns), droppedPerRow);
    if (dropped === record?.dropped) return undefined;
    return `a mask that drops ${dropped} weights and a record of ${record?.dropped ?? 'none'}`;
  } catch (error) {
    if (error instanceof SecateurError) return `what contradicts itself (${error.message})`;
    throw error;
  }
}

type StatisticsResources = Pick<ReducedStatistics, 'meanSquaresResource' | 'qualityInputsResource'>;

/** Publishes what each projection, by its name, is pruned by. Those that have it in common share it, so that a node pulls it once. */
function publishStatistics(
  { projections, statistics, resources }: Pick<AllocateBlockOptions, 'projections' | 'statistics' | 'resources'>,
  prefix: string,
): ReadonlyMap<string, StatisticsResources> {
  const published = new Map<string, StatisticsResources>();
  for (const site of new Set(projections.map((projection) => projection.site))) {
    const passes = statistics.get(site)!;
    const qualityInputsResource = `${prefix}${site}/quality-inputs`;
    resources.publishBytes(qualityInputsResource, passes.at(-1)!.qualityInputs);
    for (const [place, { name }] of projections.filter((projection) => projection.site === site).entries()) {
      const meanSquaresResource = `${prefix}${site}/mean-squares/${place === 0 || passes.length === 1 ? 'first' : 'all'}`;
      resources.publishBytes(meanSquaresResource, meanSquaresOfPasses(passes, place === 0));
      published.set(name, { meanSquaresResource, qualityInputsResource });
    }
  }
  return published;
}
