import { createHash } from 'node:crypto';
import { meanTarget, projectionName, pruneReportToJson, SecateurError, type PlannedBlock } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { NodeReport, PerplexityChange, PruneReport } from '@secateur/proto/pruning_service';
import { PruneSpec, type ProjectionReport } from '@secateur/proto/job';
import { Architecture } from '@secateur/proto/model';
import type { Link } from '@opentelemetry/api';
import { PrunedOutput } from '../output/pruned-output.js';
import {
  describeShard,
  lastPrunedBlock,
  planJob,
  prunedProjections,
  publishDenseTensors,
  type Calibration,
  type JobPlan,
} from '../planner/job-plan.js';
import { measuringWith, workOf } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { allocateBlock, type AllocatedProjection } from './allocate-block.js';
import { collectStatistics } from './collect-statistics.js';
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
  const plan = await withSpan(SpanName.PLAN, {}, () =>
    clock.measure('plan', async () => withCalibration(await planJob(run.jobId, { ...input, allowedRoots: run.roots }, run.signal))),
  );
  try {
    const { samples, sequenceLength } = plan.calibration.tokens;
    const resolved = { ...spec, calibration: spec.calibration && { ...spec.calibration, samples, sequenceLength } };
    const output = await PrunedOutput.open(plan, spec.output, identityOf(plan, resolved), run.resources);
    const resumedLayers = output.finished.length;
    const crew = gatherCrew(run, plan, pruning);
    try {
      publishDenseTensors(plan, run.resources);
      announcePlan(run, plan, resumedLayers);
      const evaluate = (shards: MeasuredShards): Promise<number> =>
        clock.measure('evaluate', async () => {
          await crew.turnTo(contextOf(run, plan, measuringWith(spec)));
          return measurePerplexity(run, plan, shards, crew);
        });
      const { measurement } = plan;
      const dense = measurement && (await output.densePerplexity(measurement.digest, () => evaluate(describeDenseModel(plan))));
      await crew.turnTo(contextOf(run, plan, pruning));
      const layerSeconds = output.finished.map((layer) => layer.seconds);
      layerSeconds.push(...(await new LayerPruner(run, spec, plan, output, crew, clock).pruneFrom(resumedLayers)));
      const perplexity = dense === undefined ? undefined : { dense, pruned: await evaluate(describePrunedModel(plan, output)) };
      const seconds = { ...clock.seconds(), total: secondsSince(started) };
      const nodes = await crew.report();
      const report = makeReport({ spec: resolved, plan, output, nodes, resumedLayers, seconds, layerSeconds, perplexity });
      await withSpan(SpanName.WRITE, {}, () => output.publish(pruneReportToJson(report), run.signal));
      return report;
    } finally {
      await crew.close();
      await output.close();
    }
  } finally {
    run.resources.withdraw(`jobs/${run.jobId}/`);
    await plan.checkpoint.close();
  }
}

type PrepareMember = (member: NodeSession, signal: AbortSignal) => Promise<void>;

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
    });
  }

  /** Prunes all layers from one on and returns the seconds each took. */
  async pruneFrom(firstLayer: number): Promise<number[]> {
    const layerSeconds: number[] = [];
    for (const block of this.plan.model.blocks.slice(firstLayer)) {
      const attributes = { [Attribute.JOB_ID]: this.run.jobId, [Attribute.LAYER_INDEX]: block.index };
      await withSpan(SpanName.LAYER_SUMMARY, { attributes }, async (summary) => {
        const jobLink: Link = { context: summary.spanContext() };
        await withSpan(
          SpanName.LAYER,
          {
            root: true,
            attributes: { ...attributes, [Attribute.TRACE_RECORD]: this.run.recordTrace },
            links: this.previousLayer === undefined ? [jobLink] : [jobLink, this.previousLayer],
          },
          async (span) => {
            this.previousLayer = { context: span.spanContext() };
            summary.addLink(this.previousLayer);
            this.run.trace.add(span.spanContext().traceId);
            layerSeconds.push(await this.pruneBlock(block));
          },
        );
      });
      await this.run.trace.drain(this.run.pool);
    }
    return layerSeconds;
  }

  private async pruneBlock(block: PlannedBlock): Promise<number> {
    const { run, clock, crew } = this;
    const started = performance.now();
    const dense = describeShard(this.plan, block.shard);
    const next = this.plan.model.blocks[block.index + 1];
    const loadDense: PrepareMember = async (member, signal) => {
      if (member.holds(dense.id)) return;
      await member.loadShard(dense, signal);
      if (next !== undefined) member.prefetch(describeShard(this.plan, next.shard), signal);
    };

    const allocated = await this.allocate(block, dense.id, loadDense);

    const digests = await clock.measure('write', () =>
      withSpan(SpanName.WRITE, { attributes: { [Attribute.LAYER_INDEX]: block.index } }, () => this.output.writeBlock(block, allocated)),
    );
    const { targets } = this.plan;
    const projections = allocated.map((allocation) => reportProjection(allocation, targets.get(allocation.projection.name)!));
    await Promise.all([
      block.index < lastPrunedBlock(this.plan) ? clock.measure('propagate', () => this.propagate(block, allocated, loadDense)) : undefined,
      this.output.commitBlock({ layer: block.index, projections, digests, seconds: secondsSince(started) }),
    ]);
    await crew.each((member, signal) => member.releaseShard(dense.id, signal), run.signal);
    const seconds = secondsSince(started);
    run.log.append({ $case: 'layerFinished', value: { layer: block.index, projections, seconds } });
    return seconds;
  }

  /** Collects the statistics of a block and allocates the rows of those of its projections that are pruned. */
  private async allocate(block: PlannedBlock, shardId: string, prepare: PrepareMember): Promise<AllocatedProjection[]> {
    const { run, clock, crew, plan } = this;
    const projections = prunedProjections(plan, block);
    if (projections.length === 0) return [];
    const collecting = new StepProgress(run, block.index, 'collect', this.hiddenStates.groupCount);
    const statistics = await clock.measure('collect', () =>
      collectStatistics(
        this.hiddenStates,
        block.index,
        shardId,
        this.spec.sketches,
        prepare,
        () => collecting.advance(),
        run.signal,
      ),
    );
    const allocating = new StepProgress(run, block.index, 'allocate', projections.length);
    return clock.measure('allocate', () =>
      allocateBlock(
        {
          jobId: run.jobId,
          block,
          projections,
          targets: plan.targets,
          statistics,
          options: optionsOf(this.spec),
          rowSparsities: plan.rowSparsities,
          crew,
          resources: run.resources,
          prepare,
          onProjection: () => allocating.advance(),
        },
        run.signal,
      ),
    );
  }

  /** Masks the block on every node that holds it dense, loads it pruned on the others, and runs it. A block that is left out stays dense. */
  private async propagate(block: PlannedBlock, allocated: readonly AllocatedProjection[], loadDense: PrepareMember): Promise<void> {
    const { run } = this;
    const prefix = `jobs/${run.jobId}/masks/${block.index}/`;
    const masks = allocated.map(({ projection, mask }) => {
      const resource = `${prefix}${projection.name}`;
      run.resources.publishBytes(resource, mask);
      return { projection: projection.role, resource };
    });
    const masked = new Set<NodeSession>();
    const prepare = async (member: NodeSession, signal: AbortSignal): Promise<void> => {
      if (masked.has(member)) return;
      if (member.holds(block.shard.id)) {
        await withSpan(SpanName.APPLY, { attributes: { [Attribute.NODE]: member.node.name } }, () =>
          member.applyMasks(block.shard.id, masks, signal),
        );
      } else {
        await member.loadShard(this.output.describeBlock(block), signal);
      }
      masked.add(member);
    };
    const progress = new StepProgress(run, block.index, 'propagate', this.hiddenStates.groupCount);
    try {
      await this.hiddenStates.forEachGroup(
        block.index,
        {
          prepare: allocated.length === 0 ? loadDense : prepare,
          advances: true,
          step: propagateStep(block.shard.id, progress),
        },
        run.signal,
      );
    } finally {
      run.resources.withdraw(prefix);
    }
  }
}

/** A plan whose model is to be pruned. */
type PrunePlan = JobPlan & { readonly calibration: Calibration };

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
  const computed = { ...spec, model: '', output: '', calibration: undefined, evaluation: undefined, rowSparsities: '' };
  hash.update(JSON.stringify({ format: 1, spec: PruneSpec.toJSON(computed) }));
  hash.update(JSON.stringify(Architecture.toJSON(plan.model.architecture)));
  const scanned = [...plan.scanned].sort(([left], [right]) => (left < right ? -1 : 1));
  for (const [name, { digest }] of scanned) hash.update(`${name}=${digest}\n`);
  hash.update(plan.calibration.tokens.digest);
  for (const [name, values] of plan.rowSparsities) hash.update(name).update(values);
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
