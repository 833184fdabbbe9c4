import {
  changesKeptWeights,
  hasDenseTargets,
  needsGramMatrices,
  planStages,
  projectionName,
  SecateurError,
  type PlannedBlock,
  type PruningStage,
  type ReducedSite,
} from '@secateur/core';
import { Attribute, count, recordSeconds, SpanName, withSpan } from '@secateur/telemetry';
import type { PruneSpec, ProjectionReport } from '@secateur/proto/job';
import { HiddenStream } from '@secateur/proto/kernel_service';
import type { InputSite } from '@secateur/proto/statistics';
import type { Link } from '@opentelemetry/api';
import type { FinishedLayer } from '../output/journal.js';
import type { PrunedOutput } from '../output/pruned-output.js';
import { driftRowsOf } from '../planner/drift-rows.js';
import { describeShard, lastPrunedBlock, prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import { sideBySide } from '../scheduler/side-by-side.js';
import { allocateBlock, type AllocatedProjection } from './allocate-block.js';
import { BlockWeights } from './block-weights.js';
import { BlockWriter, type WrittenProjection } from './block-writer.js';
import { collectStatistics } from './collect-statistics.js';
import { GramMatrices } from './gram-matrices.js';
import { HiddenStates } from './hidden-states.js';
import { StepProgress, type JobRun } from './job-run.js';
import { propagateStep } from './propagate-step.js';
import type { StepClock } from './step-clock.js';

/** What the layer loop takes of a run. */
export interface LayerRun extends Pick<JobRun, 'jobId' | 'recordTrace' | 'pool' | 'resources' | 'signal'> {
  readonly log: Pick<JobRun['log'], 'append'>;
  readonly trace: Pick<JobRun['trace'], 'add' | 'drain'>;
}

/** Where the layer loop puts what it pruned. */
export type LayerOutput = Pick<PrunedOutput, 'writesAtOnce' | 'writeProjection' | 'commitBlock' | 'describeBlock'> &
  Partial<Pick<PrunedOutput, 'snapshots'>>;

/**
 * The layer loop: collect, allocate, propagate, one block after the other, with the next block's bytes on their way. Projections are written as
 * they are allocated. The next block begins when all of this one is written; nothing of it is written before this one is durable and journaled.
 */
export class LayerPruner {
  private readonly hiddenStates: HiddenStates;
  private previousLayer: Link | undefined;
  /** Ends when all blocks that are written are journaled and told of. */
  private committed: Promise<void> = Promise.resolve();

  constructor(
    private readonly run: LayerRun,
    private readonly spec: PruneSpec,
    private readonly plan: PrunePlan,
    private readonly output: LayerOutput,
    private readonly crew: Crew,
    private readonly clock: StepClock,
  ) {
    const source = {
      blocks: lastPrunedBlock(plan) + 1,
      snapshots: output.snapshots,
      embedding: describeShard(plan, plan.model.embedding),
      block: (index: number) => output.describeBlock(plan.model.blocks[index]!),
      denseBlock: hasDenseTargets(spec) ? (index: number) => describeShard(plan, plan.model.blocks[index]!.shard) : undefined,
    };
    this.hiddenStates = new HiddenStates(plan.calibration.groups, crew, source, clock.now);
  }

  /** Prunes all layers from one on and returns the seconds each took. */
  async pruneFrom(firstLayer: number): Promise<number[]> {
    const blocks = this.plan.model.blocks.slice(firstLayer);
    const layerSeconds: number[] = [];
    try {
      for (const block of blocks) {
        layerSeconds.push(await this.pruneTraced(block));
        await this.run.trace.drain(this.run.pool);
      }
      await this.committed;
      return layerSeconds;
    } finally {
      // What failed before matters; files are closed only when nothing is written any more.
      await this.committed.catch(() => undefined);
    }
  }

  /** Prunes a block in a trace of its own and returns the seconds it took. */
  private async pruneTraced(block: PlannedBlock): Promise<number> {
    const attributes = { [Attribute.JOB_ID]: this.run.jobId, [Attribute.LAYER_INDEX]: block.index };
    return withSpan(SpanName.LAYER_SUMMARY, { attributes }, (summary) => {
      const jobLink: Link = { context: summary.spanContext() };
      return withSpan(
        SpanName.LAYER,
        {
          root: true,
          attributes: { ...attributes, [Attribute.TRACE_RECORD]: this.run.recordTrace },
          links: this.previousLayer === undefined ? [jobLink] : [jobLink, this.previousLayer],
        },
        (span) => {
          this.previousLayer = { context: span.spanContext() };
          summary.addLink(this.previousLayer);
          this.run.trace.add(span.spanContext().traceId);
          return this.pruneBlock(block);
        },
      );
    });
  }

  private async pruneBlock(block: PlannedBlock): Promise<number> {
    const { run, clock, crew, committed: blocksBefore } = this;
    const started = clock.now();
    const next = this.plan.model.blocks[block.index + 1];
    const weights = new BlockWeights(
      run.jobId,
      describeShard(this.plan, block.shard),
      next && describeShard(this.plan, next.shard),
      run.resources,
    );
    try {
      const writer = new BlockWriter(async (allocated) => {
        await blocksBefore;
        return this.write(block, allocated);
      }, this.output.writesAtOnce);
      const compute = async (signal: AbortSignal): Promise<void> => {
        await this.allocate(block, weights, writer, signal);
        writer.end();
        if (block.index < lastPrunedBlock(this.plan)) await clock.measure('propagate', () => this.propagate(block, weights, signal));
      };
      const write = async (signal: AbortSignal): Promise<FinishedLayer> => {
        const layer = this.describeLayer(block, await writer.run(signal), started);
        await blocksBefore;
        this.goOnCommitting(this.commit(layer));
        return layer;
      };
      // Where the blocks before cannot be made durable, there is no use in this one.
      const [, layer] = await sideBySide([compute, write, () => blocksBefore], run.signal);
      await crew.each((member, signal) => weights.release(member, signal), run.signal);
      await this.keepHiddenStates(block.index + 1);
      const seconds = clock.secondsSince(started);
      recordSeconds('LAYER_DURATION', seconds);
      const { samples, sequenceLength } = this.plan.calibration.tokens;
      count('TOKENS', samples * sequenceLength);
      this.goOnCommitting(this.committed.then(() => this.tellOf(layer, seconds)));
      return seconds;
    } finally {
      weights.withdraw();
    }
  }

  private write({ index }: PlannedBlock, allocated: AllocatedProjection): Promise<string> {
    const attributes = { [Attribute.LAYER_INDEX]: index, [Attribute.PROJECTION]: allocated.projection.name };
    return this.clock.measure('write', () => withSpan(SpanName.WRITE, { attributes }, () => this.output.writeProjection(allocated)));
  }

  private goOnCommitting(committed: Promise<void>): void {
    this.committed = committed;
    // Told where it is waited for.
    committed.catch(() => undefined);
  }

  /** Without the masks and weights, which need not stay in memory until the block is durable. */
  private describeLayer(block: PlannedBlock, written: ReadonlyMap<string, WrittenProjection>, started: number): FinishedLayer {
    const { plan, clock } = this;
    const inOrder = prunedProjections(plan, block).map(({ name }) => written.get(name)!);
    const projections = inOrder.map(({ allocated }) => reportProjection(allocated, plan.targets.get(allocated.projection.name)!));
    const digests = Object.fromEntries(inOrder.map(({ allocated, digest }) => [allocated.projection.name, digest]));
    return { layer: block.index, projections, digests, seconds: clock.secondsSince(started) };
  }

  /** Makes what was written of a block durable and journals the block. */
  private async commit(layer: FinishedLayer): Promise<void> {
    const attributes = { [Attribute.LAYER_INDEX]: layer.layer };
    await this.clock.measure('write', () => withSpan(SpanName.COMMIT, { attributes }, () => this.output.commitBlock(layer)));
  }

  private tellOf({ layer, projections }: FinishedLayer, seconds: number): void {
    this.run.log.append({ $case: 'layerFinished', value: { layer, projections: [...projections], seconds } });
  }

  /**
   * Allocates the rows of the projections of a block that are pruned, stage by stage; what a stage drops is gone for those after it. Each goes to the
   * writer as soon as it is there.
   */
  private async allocate(block: PlannedBlock, weights: BlockWeights, writer: BlockWriter, signal: AbortSignal): Promise<void> {
    const { plan, spec } = this;
    const statistics = new Map<InputSite, ReducedSite[]>();
    for (const stage of planStages(prunedProjections(plan, block), spec.propagation)) {
      const { collected, grams } = await this.collect(block, stage, weights, signal);
      for (const ofSite of collected) statistics.set(ofSite.site, [...(statistics.get(ofSite.site) ?? []), ofSite]);
      weights.drop(await this.allocateStage(block, stage, { statistics, grams, writer }, weights, signal));
    }
  }

  private async collect(
    block: PlannedBlock,
    stage: PruningStage,
    weights: BlockWeights,
    signal: AbortSignal,
  ): Promise<{ collected: readonly ReducedSite[]; grams: GramMatrices | undefined }> {
    const { run, hiddenStates, crew } = this;
    const repaired = needsGramMatrices(this.spec) ? stage.allocates : [];
    const holdOut = this.spec.swap !== undefined;
    const sites = new Map(repaired.map(({ site, columns }) => [site, columns]));
    const progress = new StepProgress(run, block.index, 'collect', hiddenStates.groupCount);
    const pass = {
      layer: block.index,
      shardId: weights.shardId,
      sites: stage.collects,
      projections: block.projections,
      grams: { sites: [...sites.keys()], holdOut },
      sketches: this.spec.sketches,
      prepare: weights.prepare,
      onGroup: () => progress.advance(),
    };
    return this.clock.measure('collect', async () => {
      const collected = await collectStatistics(hiddenStates, pass, signal);
      if (sites.size === 0) return { collected, grams: undefined };
      const collectAgain = async (groups: ReadonlySet<number>, linked: AbortSignal): Promise<void> => {
        await collectStatistics(hiddenStates, { ...pass, groups, onGroup: () => undefined }, linked);
      };
      const { groupCount } = hiddenStates;
      const driftRows = hasDenseTargets(this.spec) ? driftRowsOf(repaired) : undefined;
      const grams = new GramMatrices({ crew, shardId: weights.shardId, sites, holdOut, driftRows, groupCount, collectAgain });
      await grams.ensure(signal);
      return { collected, grams };
    });
  }

  private async allocateStage(
    block: PlannedBlock,
    { allocates }: PruningStage,
    {
      statistics,
      grams,
      writer,
    }: {
      readonly statistics: ReadonlyMap<InputSite, readonly ReducedSite[]>;
      readonly grams: GramMatrices | undefined;
      readonly writer: BlockWriter;
    },
    weights: BlockWeights,
    signal: AbortSignal,
  ): Promise<AllocatedProjection[]> {
    const { run, plan, crew } = this;
    const progress = new StepProgress(run, block.index, 'allocate', allocates.length);
    const work = {
      jobId: run.jobId,
      block,
      projections: allocates,
      targets: plan.targets,
      statistics,
      samples: plan.calibration.tokens.samples,
      sketches: this.spec.sketches,
      options: optionsOf(this.spec),
      rowSparsities: plan.rowSparsities,
      repair: this.spec.repair,
      swap: this.spec.swap,
      changesKeptWeights: changesKeptWeights(this.spec),
      grams,
      crew,
      resources: run.resources,
      prepare: weights.prepare,
      onProjection: (allocated: AllocatedProjection) => {
        writer.add(allocated);
        progress.advance();
      },
    };
    return this.clock.measure('allocate', () => allocateBlock(work, signal));
  }

  /** Whenever so many blocks are done as the job says, and there are more. */
  private async keepHiddenStates(position: number): Promise<void> {
    const { snapshotEvery } = this.spec;
    const { snapshots } = this.output;
    if (snapshots === undefined || snapshotEvery === 0 || position % snapshotEvery !== 0 || position > lastPrunedBlock(this.plan)) return;
    // They count for nothing without the blocks before.
    await this.committed;
    const attributes = { [Attribute.LAYER_INDEX]: position };
    const problem = await this.clock.measure('snapshot', () =>
      withSpan(SpanName.SNAPSHOT, { attributes }, () => this.hiddenStates.keep(position, snapshots, this.run.signal)),
    );
    // A disk that takes nothing else either fails the job where it has to be written to.
    if (problem !== undefined) this.run.log.append({ $case: 'snapshotFailed', value: { layer: position, reason: problem.message } });
  }

  /** Runs the block as it is now, which gives the inputs of the next. A block that is left out is dense. */
  private async propagate(block: PlannedBlock, weights: BlockWeights, signal: AbortSignal): Promise<void> {
    const { run, hiddenStates } = this;
    const progress = new StepProgress(run, block.index, 'propagate', hiddenStates.groupCount);
    const streams = hasDenseTargets(this.spec) ? [HiddenStream.DENSE, HiddenStream.PRUNED] : [HiddenStream.PRUNED];
    await hiddenStates.forEachGroup(
      block.index,
      { prepare: weights.prepare, advances: true, step: propagateStep(weights.shardId, streams, progress) },
      signal,
    );
  }
}

function reportProjection({ projection, rows }: AllocatedProjection, target: number): ProjectionReport {
  const weights = projection.rows * projection.columns;
  return {
    name: projectionName(projection),
    rows: projection.rows,
    columns: projection.columns,
    target,
    actual: (rows.record?.dropped ?? 0) / weights,
    record: rows.record,
    seconds: rows.seconds,
    repair: rows.repair,
    swap: rows.swap,
  };
}

function optionsOf(spec: PruneSpec) {
  if (spec.options === undefined) throw new SecateurError('INVALID_REQUEST', 'prune.options is missing.');
  return spec.options;
}
