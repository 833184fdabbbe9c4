import { createHash } from 'node:crypto';
import {
  changesKeptWeights,
  completeBudgetOptions,
  hasDenseTargets,
  meanTarget,
  needsGramMatrices,
  planStages,
  projectionName,
  pruneReportToJson,
  SecateurError,
  type PlannedBlock,
  type PruningStage,
  type ReducedSite,
} from '@secateur/core';
import { adjust, Attribute, count, recordSeconds, SpanName, withSpan } from '@secateur/telemetry';
import type { NodeReport, PerplexityChange, PruneReport } from '@secateur/proto/pruning_service';
import { LayerBudget, Preset, PruneSpec, type ProjectionReport } from '@secateur/proto/job';
import { HiddenStream } from '@secateur/proto/kernel_service';
import { Architecture } from '@secateur/proto/model';
import type { InputSite } from '@secateur/proto/statistics';
import type { Link } from '@opentelemetry/api';
import type { FinishedLayer } from '../output/journal.js';
import { PrunedOutput } from '../output/pruned-output.js';
import { driftRowsOf } from '../planner/drift-rows.js';
import {
  describeShard,
  lastPrunedBlock,
  planJob,
  prunedProjections,
  publishDenseTensors,
  type JobPlan,
  type PrunePlan,
} from '../planner/job-plan.js';
import { measuringWith, workOf } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import { allocateBlock, type AllocatedProjection } from './allocate-block.js';
import { BlockWeights } from './block-weights.js';
import { collectStatistics } from './collect-statistics.js';
import { GramMatrices } from './gram-matrices.js';
import { withLayerBudget } from './layer-budget.js';
import { HiddenStates } from './hidden-states.js';
import { describeDenseModel, measuredPerplexity } from './evaluate.js';
import { announcePlan, contextOf, gatherCrew, StepProgress, type JobRun } from './job-run.js';
import { measureLosses, type MeasuredShards } from './measure-losses.js';
import { propagateStep } from './propagate-step.js';
import { StepClock } from './step-clock.js';

/** Prunes a checkpoint layer by layer over the nodes of the pool. */
export async function runPrune(run: JobRun, spec: PruneSpec): Promise<PruneReport> {
  const started = performance.now();
  const clock = new StepClock();
  const { input, works } = workOf({ $case: 'prune', value: spec });
  const pruning = works[0]!;
  const planned = await withSpan(SpanName.PLAN, {}, () =>
    clock.measure('plan', async () => withCalibration(await planJob(run.jobId, { ...input, allowedRoots: run.roots }, run.signal))),
  );
  try {
    const { samples, sequenceLength } = planned.calibration.tokens;
    const resolved = {
      ...spec,
      calibration: spec.calibration && { ...spec.calibration, samples, sequenceLength },
      layerBudgetOptions: completeBudgetOptions(spec, planned.model.architecture),
    };
    const output = await PrunedOutput.open(planned, spec.output, identityOf(planned, resolved), run.resources, run.lease);
    const resumedLayers = output.finished.length;
    const crew = gatherCrew(run, planned, pruning);
    try {
      publishDenseTensors(planned, run.resources);
      announcePlan(run, planned, resumedLayers);
      tellOfEarlierLayers(run, output.finished);
      const evaluate = (shards: MeasuredShards): Promise<number> =>
        clock.measure('evaluate', async () => {
          await crew.turnTo(contextOf(run, planned, measuringWith(spec)));
          return measurePerplexity(run, planned, shards, crew);
        });
      const { measurement } = planned;
      const dense = measurement && (await output.densePerplexity(measurement.digest, () => evaluate(describeDenseModel(planned))));
      const plan = await withLayerBudget(planned, { run, spec, output, crew, clock });
      await crew.turnTo(contextOf(run, plan, pruning));
      const layerSeconds = output.finished.map((layer) => layer.seconds);
      layerSeconds.push(...(await new LayerPruner(run, spec, plan, output, crew, clock).pruneFrom(resumedLayers)));
      const perplexity = dense === undefined ? undefined : { dense, pruned: await evaluate(describePrunedModel(plan, output)) };
      const seconds = { ...clock.seconds(), total: secondsSince(started) };
      const nodes = await crew.report();
      const report = makeReport({ spec: resolved, plan, output, nodes, resumedLayers, seconds, layerSeconds, perplexity });
      // Before the output has its name: an attempt that is lost in between is over then.
      await run.saveReport({ $case: 'prune', value: report });
      const layerBudget = spec.layerBudget === LayerBudget.UNIFORM ? undefined : plan.targets;
      await withSpan(SpanName.WRITE, {}, () => output.publish(pruneReportToJson(report), layerBudget, run.signal));
      return report;
    } finally {
      await crew.close();
      await output.close();
    }
  } finally {
    run.resources.withdraw(`jobs/${run.jobId}/`);
    await planned.checkpoint.close();
  }
}

/** An attempt that was lost may have finished blocks that its log could not tell of any more. */
function tellOfEarlierLayers({ log, toldLayers }: JobRun, finished: readonly FinishedLayer[]): void {
  for (const { layer, projections, seconds } of finished.slice(toldLayers)) {
    log.append({ $case: 'layerFinished', value: { layer, projections: [...projections], seconds } });
  }
}

/** The layer loop: collect, allocate, write, propagate, one block after the other, with the next block's bytes on their way. */
class LayerPruner {
  private readonly hiddenStates: HiddenStates;
  private previousLayer: Link | undefined;

  constructor(
    private readonly run: JobRun,
    private readonly spec: PruneSpec,
    private readonly plan: PrunePlan,
    private readonly output: PrunedOutput,
    private readonly crew: Crew,
    private readonly clock: StepClock,
  ) {
    this.hiddenStates = new HiddenStates(plan.calibration.groups, crew, {
      embedding: describeShard(plan, plan.model.embedding),
      block: (index) => output.describeBlock(plan.model.blocks[index]!),
      denseBlock: hasDenseTargets(spec) ? (index) => describeShard(plan, plan.model.blocks[index]!.shard) : undefined,
    });
  }

  /** Prunes all layers from one on and returns the seconds each took. */
  async pruneFrom(firstLayer: number): Promise<number[]> {
    const blocks = this.plan.model.blocks.slice(firstLayer);
    const layerSeconds: number[] = [];
    adjust('PENDING_LAYERS', blocks.length);
    try {
      for (const block of blocks) {
        layerSeconds.push(await this.pruneTraced(block));
        await this.run.trace.drain(this.run.pool);
      }
      return layerSeconds;
    } finally {
      adjust('PENDING_LAYERS', layerSeconds.length - blocks.length);
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
    const { run, clock, crew } = this;
    const started = performance.now();
    const next = this.plan.model.blocks[block.index + 1];
    const weights = new BlockWeights(
      run.jobId,
      describeShard(this.plan, block.shard),
      next && describeShard(this.plan, next.shard),
      run.resources,
    );
    try {
      const allocated = await this.allocate(block, weights);

      const digests = await clock.measure('write', () =>
        withSpan(SpanName.WRITE, { attributes: { [Attribute.LAYER_INDEX]: block.index } }, () => this.output.writeBlock(block, allocated)),
      );
      const { targets } = this.plan;
      const projections = allocated.map((allocation) => reportProjection(allocation, targets.get(allocation.projection.name)!));
      await Promise.all([
        block.index < lastPrunedBlock(this.plan) ? clock.measure('propagate', () => this.propagate(block, weights)) : undefined,
        this.output.commitBlock({ layer: block.index, projections, digests, seconds: secondsSince(started) }),
      ]);
      await crew.each((member, signal) => weights.release(member, signal), run.signal);
      const seconds = secondsSince(started);
      run.log.append({ $case: 'layerFinished', value: { layer: block.index, projections, seconds } });
      adjust('PENDING_LAYERS', -1);
      recordSeconds('LAYER_DURATION', seconds);
      const { samples, sequenceLength } = this.plan.calibration.tokens;
      count('TOKENS', samples * sequenceLength);
      return seconds;
    } finally {
      weights.withdraw();
    }
  }

  /** Allocates the rows of the projections of a block that are pruned, stage by stage; what a stage drops is gone for those after it. */
  private async allocate(block: PlannedBlock, weights: BlockWeights): Promise<AllocatedProjection[]> {
    const { plan, spec } = this;
    const allocated: AllocatedProjection[] = [];
    const statistics = new Map<InputSite, ReducedSite[]>();
    for (const stage of planStages(prunedProjections(plan, block), spec.propagation)) {
      const { collected, grams } = await this.collect(block, stage, weights);
      for (const ofSite of collected) statistics.set(ofSite.site, [...(statistics.get(ofSite.site) ?? []), ofSite]);
      const ofStage = await this.allocateStage(block, stage, { statistics, grams }, weights);
      weights.drop(ofStage);
      allocated.push(...ofStage);
    }
    return allocated;
  }

  private async collect(
    block: PlannedBlock,
    stage: PruningStage,
    weights: BlockWeights,
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
      grams: { sites: [...sites.keys()], holdOut },
      sketches: this.spec.sketches,
      prepare: weights.prepare,
      onGroup: () => progress.advance(),
    };
    return this.clock.measure('collect', async () => {
      const collected = await collectStatistics(hiddenStates, pass, run.signal);
      if (sites.size === 0) return { collected, grams: undefined };
      const collectAgain = async (groups: ReadonlySet<number>, signal: AbortSignal): Promise<void> => {
        await collectStatistics(hiddenStates, { ...pass, groups, onGroup: () => undefined }, signal);
      };
      const { groupCount } = hiddenStates;
      const driftRows = hasDenseTargets(this.spec) ? driftRowsOf(repaired) : undefined;
      const grams = new GramMatrices({ crew, shardId: weights.shardId, sites, holdOut, driftRows, groupCount, collectAgain });
      await grams.ensure(run.signal);
      return { collected, grams };
    });
  }

  private async allocateStage(
    block: PlannedBlock,
    { allocates }: PruningStage,
    {
      statistics,
      grams,
    }: { readonly statistics: ReadonlyMap<InputSite, readonly ReducedSite[]>; readonly grams: GramMatrices | undefined },
    weights: BlockWeights,
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
      onProjection: () => progress.advance(),
    };
    return this.clock.measure('allocate', () => allocateBlock(work, run.signal));
  }

  /** Runs the block as it is now, which gives the inputs of the next. A block that is left out is dense. */
  private async propagate(block: PlannedBlock, weights: BlockWeights): Promise<void> {
    const { run, hiddenStates } = this;
    const progress = new StepProgress(run, block.index, 'propagate', hiddenStates.groupCount);
    const streams = hasDenseTargets(this.spec) ? [HiddenStream.DENSE, HiddenStream.PRUNED] : [HiddenStream.PRUNED];
    await hiddenStates.forEachGroup(
      block.index,
      { prepare: weights.prepare, advances: true, step: propagateStep(weights.shardId, streams, progress) },
      run.signal,
    );
  }
}

function withCalibration(plan: JobPlan): PrunePlan {
  const { calibration } = plan;
  if (calibration === undefined) throw new SecateurError('INVALID_REQUEST', 'prune.calibration is missing.');
  return { ...plan, calibration };
}

/** The perplexity of the model as the shards have it. */
async function measurePerplexity(run: JobRun, plan: PrunePlan, shards: MeasuredShards, crew: Crew): Promise<number> {
  const measurement = plan.measurement!;
  // One step of the whole job: what layers it goes through says nothing about how far pruning has come.
  const progress = new StepProgress(run, 0, 'evaluate', measurement.batches.length * (shards.blocks.length + 1));
  return measuredPerplexity(measurement, await measureLosses(run, measurement, shards, crew, () => progress));
}

/** The shards of the model with every block as it was written. */
function describePrunedModel(plan: PrunePlan, output: PrunedOutput): MeasuredShards {
  return { ...describeDenseModel(plan), blocks: plan.model.blocks.map((block) => output.describeBlock(block)) };
}

/** Everything the result depends on. Two attempts with one identity make the same bytes; what is measured changes none of them. */
function identityOf(plan: PrunePlan, spec: PruneSpec): string {
  const hash = createHash('sha256');
  // Files count by what is in them.
  const layerBudgetOptions = spec.layerBudgetOptions && { ...spec.layerBudgetOptions, file: '' };
  const computed = {
    ...spec,
    model: '',
    output: '',
    calibration: undefined,
    evaluation: undefined,
    rowSparsities: '',
    layerBudgetOptions,
    preset: Preset.UNSPECIFIED,
  };
  hash.update(JSON.stringify({ format: 1, spec: PruneSpec.toJSON(computed) }));
  hash.update(JSON.stringify(Architecture.toJSON(plan.model.architecture)));
  const scanned = [...plan.scanned].sort(([left], [right]) => (left < right ? -1 : 1));
  for (const [name, { digest }] of scanned) hash.update(`${name}=${digest}\n`);
  hash.update(plan.calibration.tokens.digest);
  for (const [name, values] of plan.rowSparsities) hash.update(name).update(values);
  if (spec.layerBudget === LayerBudget.GIVEN) hash.update(JSON.stringify([...plan.targets]));
  return hash.digest('hex');
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

interface Results {
  readonly spec: PruneSpec;
  readonly plan: PrunePlan;
  readonly output: PrunedOutput;
  readonly nodes: NodeReport[];
  readonly resumedLayers: number;
  readonly seconds: Record<string, number>;
  readonly layerSeconds: number[];
  readonly perplexity: PerplexityChange | undefined;
}

function makeReport({ spec, plan, output, nodes, resumedLayers, seconds, layerSeconds, perplexity }: Results): PruneReport {
  const projections = output.finished.flatMap((layer) => layer.projections);
  const all = plan.model.blocks.flatMap((block) => block.projections);
  const weights = all.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const dropped = projections.reduce((sum, { record }) => sum + (record?.dropped ?? 0), 0);
  return {
    model: spec.model,
    output: spec.output,
    targetSparsity: meanTarget(all, plan.targets),
    actualSparsity: dropped / weights,
    config: spec,
    samples: plan.calibration.tokens.samples,
    sequenceLength: plan.calibration.tokens.sequenceLength,
    calibrationDigest: plan.calibration.tokens.digest,
    calibrationFiles: [...plan.calibration.tokens.files],
    calibrationSha256: plan.calibration.tokens.sha256,
    calibrationDocuments: plan.calibration.tokens.documents,
    projections,
    seconds,
    nodes,
    layerSeconds,
    resumedLayers,
    perplexity,
    skipped: all.filter(({ name }) => !plan.targets.has(name)).map(projectionName),
  };
}

function optionsOf(spec: PruneSpec) {
  if (spec.options === undefined) throw new SecateurError('INVALID_REQUEST', 'prune.options is missing.');
  return spec.options;
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000;
}
