import { createHash } from 'node:crypto';
import { completeBudgetOptions, meanTarget, projectionName, pruneReportToJson, SecateurError } from '@secateur/core';
import { SpanName, withSpan } from '@secateur/telemetry';
import type { NodeReport, PerplexityChange, PruneReport } from '@secateur/proto/pruning_service';
import { LayerBudget, Preset, PruneSpec } from '@secateur/proto/job';
import { Architecture } from '@secateur/proto/model';
import type { FinishedLayer } from '../output/journal.js';
import { PrunedOutput } from '../output/pruned-output.js';
import { planJob, publishDenseTensors, type JobPlan, type PrunePlan } from '../planner/job-plan.js';
import { measuringWith, workOf } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import { LayerPruner } from './layer-pruner.js';
import { withLayerBudget } from './layer-budget.js';
import { describeDenseModel, measuredPerplexity } from './evaluate.js';
import { announcePlan, contextOf, gatherCrew, StepProgress, type JobRun } from './job-run.js';
import { measureLosses, type MeasuredShards } from './measure-losses.js';
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
    const output = await PrunedOutput.open(planned, run.outputs.at(spec.output), identityOf(planned, resolved), run.resources, run.lease);
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
  } catch (error) {
    // Nodes only see bytes that do not match what was promised.
    const isCorrupt = error instanceof SecateurError && error.reason === 'CORRUPT_DATA';
    const path = isCorrupt ? await planned.checkpoint.changedFile() : undefined;
    throw path === undefined ? error : planned.checkpoint.changed(path);
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
    snapshotEvery: 0,
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

function secondsSince(started: number): number {
  return (performance.now() - started) / 1000;
}
