import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { defaultStaging, isStoreUrl, resolveLocation, stagingFolder } from '@secateur/checkpoint';
import { pruneReportToJson, SecateurError, type ErrorReason } from '@secateur/core';
import type { Allocation, LayerQuality, Repair, RepairTargets, RowQuality, Score } from '@secateur/proto/allocation';
import {
  JobSpec,
  Pattern,
  type Preset,
  Propagation,
  type AlphaMetric,
  type BudgetGranularity,
  type LayerBudget,
  type LayerBudgetOptions,
  type ProjectionSelection,
  type ProjectionTarget,
  type QualityInputs,
  type Sampling,
} from '@secateur/proto/job';
import type { Compute, HiddenStates } from '@secateur/proto/model';
import { localRoots } from '../cluster/local-roots.js';
import { withService, type ServiceOptions } from '../cluster/with-service.js';
import { checkRequest, type PathCheck } from '../input/check-request.js';
import { Interrupted, Unfinished } from '../output/exit.js';
import { formatPruneReport } from '../output/summary.js';
import { writeResult } from '../output/write-result.js';
import { runJob } from './run-job.js';

/** What and how to prune, and on which nodes. */
export interface PruneSettings extends ServiceOptions {
  readonly model: string;
  /** Not needed to plan. */
  readonly out?: string;
  readonly sparsity: number;
  /** Not needed to plan. */
  readonly calibration?: readonly string[];
  readonly sampling: Sampling;
  /** What the perplexity is measured with before and after. */
  readonly eval?: string;
  readonly evalSamples: number;
  /** Of both. */
  readonly textField: string;
  readonly samples: number;
  readonly seqLen: number;
  readonly seed: number;
  readonly preset: Preset;
  readonly score: Score;
  readonly allocation: Allocation;
  readonly qualityInputs: QualityInputs;
  readonly sketches: number;
  readonly layerQuality: LayerQuality;
  readonly rowQuality: RowQuality;
  /** `file` is empty where no ratios are given. */
  readonly layerBudget: { readonly budget: LayerBudget; readonly file: string };
  /** Settings of budgets; undefined where not given. */
  readonly optimalSpread?: number;
  readonly optimalSamples?: number;
  readonly owlLambda?: number;
  readonly owlThreshold?: number;
  readonly alphaMetric?: AlphaMetric;
  readonly alphaEpsilon?: number;
  readonly alphaPer?: BudgetGranularity;
  /** Absent when any weight may be dropped. */
  readonly pattern?: { readonly dropped: number; readonly group: number };
  readonly propagation: Propagation;
  /** Another propagation. */
  readonly inputRecalc?: boolean;
  readonly rowSparsities?: string;
  readonly repair: Repair;
  readonly repairTargets: RepairTargets;
  readonly repairDamping: number;
  readonly repairIterations: number;
  /** The most swaps of a row, as a share of its weights; true for the default, absent for none. */
  readonly swap?: number | true;
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly iterations: number;
  readonly learningRates: readonly number[];
  /** Patterns, blocks and sparsities of projections; undefined where not given. */
  readonly only?: readonly string[];
  readonly skip?: readonly string[];
  readonly skipLayers?: readonly number[];
  readonly target?: readonly ProjectionTarget[];
  /** False with --no-negative-rates. */
  readonly negativeRates: boolean;
}

export interface PruneOptions extends PruneSettings {
  readonly out: string;
  readonly calibration: readonly string[];
  readonly jobId?: string;
  readonly priority?: number;
  readonly attempts?: number;
  readonly snapshotEvery?: number;
  readonly traceOut?: string;
  /** Where an output that goes to a store is made. */
  readonly staging?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

const REFUSALS: ReadonlySet<ErrorReason> = new Set(['INVALID_REQUEST', 'ALREADY_EXISTS', 'PATH_NOT_ALLOWED']);

export async function prune(options: PruneOptions): Promise<void> {
  const spec = await checkRequest(toPruneSpec(options), pathChecks(options), { jobId: options.jobId });
  const output = resolveLocation(options.out);
  const unfinished = isStoreUrl(output) ? stagingFolder(output, options.staging ?? defaultStaging()) : `${output}.partial`;
  const roots = await localRoots(options.model, dataFiles(options), [output]);
  const resumeHint = async (): Promise<string> =>
    (await hasFinishedLayers(unfinished))
      ? `Run the same command again to go on after the last finished layer (kept in ${unfinished}).`
      : '';
  try {
    const { report, traceError } = await withService(options, roots, async (client, signal) => {
      const traceOut = options.traceOut === undefined ? {} : { traceOut: resolve(options.traceOut) };
      const jobId = options.jobId ?? jobIdOf(spec);
      const { job, traceError: error } = await runJob(client, {
        jobId,
        spec,
        quiet: options.quiet === true,
        ...traceOut,
        resumeHint,
        signal,
      });
      const answer = (await client.getReport(job.id, { jobCreatedAt: job.createdAt })).report;
      if (answer?.$case !== 'prune') throw new SecateurError('INTERNAL', `Job ${job.id} has no report of a prune job.`);
      return { report: answer.value, traceError: error };
    });
    writeResult(options.json, pruneReportToJson(report), () => formatPruneReport(report));
    if (traceError !== undefined) throw traceError;
  } catch (error) {
    const hint = error instanceof Interrupted || isRefusal(error) ? '' : await resumeHint();
    throw hint === '' ? error : new Unfinished(error, hint);
  }
}

/** Whether the same command would be refused again. */
function isRefusal(error: unknown): boolean {
  return error instanceof SecateurError && REFUSALS.has(error.reason);
}

async function hasFinishedLayers(workFolder: string): Promise<boolean> {
  const { Journal } = await import('@secateur/orchestrator/journal');
  return ((await Journal.read(workFolder))?.layers.length ?? 0) > 0;
}

/** The job a user asks for; paths become absolute because the service may run elsewhere. A job that is only planned may lack output and data. */
export function toPruneSpec(
  options: PruneSettings & Partial<Pick<PruneOptions, 'traceOut' | 'priority' | 'attempts' | 'snapshotEvery'>>,
): JobSpec {
  return JobSpec.fromPartial({
    kind: {
      $case: 'prune',
      value: {
        model: resolveLocation(options.model),
        output: options.out === undefined ? '' : resolveLocation(options.out),
        sparsity: options.sparsity,
        preset: options.preset,
        options: {
          score: options.score,
          allocation: options.allocation,
          layerQuality: options.layerQuality,
          rowQuality: options.rowQuality,
          iterations: options.iterations,
          learningRates: [...options.learningRates],
          forbidNegativeLearningRates: !options.negativeRates,
          ...(options.pattern === undefined ? {} : { groupPattern: options.pattern }),
        },
        qualityInputs: options.qualityInputs,
        sketches: options.sketches,
        layerBudget: options.layerBudget.budget,
        layerBudgetOptions: toBudgetOptions(options),
        pattern: options.pattern === undefined ? Pattern.UNSTRUCTURED : Pattern.GROUPED,
        propagation: options.inputRecalc === true ? Propagation.RECALCULATED_INPUTS : options.propagation,
        rowSparsities: options.rowSparsities === undefined ? '' : resolveLocation(options.rowSparsities),
        repair: {
          method: options.repair,
          damping: options.repairDamping,
          iterations: options.repairIterations,
          targets: options.repairTargets,
        },
        swap: options.swap === undefined ? undefined : { most: options.swap === true ? 0 : options.swap },
        compute: options.compute,
        hiddenStates: options.hiddenStates,
        snapshotEvery: options.snapshotEvery ?? 0,
        selection: toSelection(options),
        calibration: {
          ...absolutePaths(options.calibration ?? []),
          textField: options.textField,
          sampling: options.sampling,
          samples: options.samples,
          sequenceLength: options.seqLen,
          seed: options.seed,
        },
        // Windows of the same length as the samples: what is measured is what was calibrated for.
        evaluation:
          options.eval === undefined
            ? undefined
            : {
                path: resolveLocation(options.eval),
                textField: options.textField,
                samples: options.evalSamples,
                sequenceLength: options.seqLen,
              },
      },
    },
    recordTrace: options.traceOut !== undefined,
    priority: options.priority ?? 0,
    maximumAttempts: options.attempts ?? 0,
  });
}

/** Settings that were given, also of other budgets than the one that was chosen: the service tells that they would do nothing. */
function toBudgetOptions(options: PruneSettings): LayerBudgetOptions | undefined {
  const { owlLambda, owlThreshold, alphaMetric, alphaEpsilon, alphaPer, optimalSpread, optimalSamples } = options;
  const { file } = options.layerBudget;
  const owl = owlLambda === undefined && owlThreshold === undefined ? undefined : { lambda: owlLambda ?? 0, threshold: owlThreshold ?? 0 };
  const alpha =
    alphaMetric === undefined && alphaEpsilon === undefined && alphaPer === undefined
      ? undefined
      : { metric: alphaMetric ?? 0, epsilon: alphaEpsilon ?? 0, granularity: alphaPer ?? 0 };
  const optimal =
    optimalSpread === undefined && optimalSamples === undefined ? undefined : { spread: optimalSpread ?? 0, samples: optimalSamples ?? 0 };
  if (owl === undefined && alpha === undefined && optimal === undefined && file === '') return undefined;
  return { owl, alpha, optimal, file: file && resolveLocation(file) };
}

function toSelection({ only, skip, skipLayers, target }: PruneSettings): ProjectionSelection | undefined {
  if ([only, skip, skipLayers, target].every((given) => given === undefined)) return undefined;
  return { only: [...(only ?? [])], skip: [...(skip ?? [])], skipLayers: [...(skipLayers ?? [])], targets: [...(target ?? [])] };
}

/** Data files and globs as a source names them. */
function absolutePaths(paths: readonly string[]): { path: string; morePaths: string[] } {
  const [path = '', ...morePaths] = paths.map(resolveLocation);
  return { path, morePaths };
}

/** The same command gives the same id, so it finds the job it began earlier on a service that is still running. */
export function jobIdOf(spec: JobSpec): string {
  return `prune-${createHash('sha256').update(JobSpec.encode(spec).finish()).digest('hex').slice(0, 16)}`;
}

/** What a job reads and writes, where that is on this machine for sure. */
export function localPathChecks(settings: PruneSettings): PathCheck[] {
  const { model, calibration, rowSparsities, eval: evaluation, out, endpoint, layerBudget } = settings;
  if (endpoint !== undefined) return [];
  const output: PathCheck[] = out === undefined ? [] : [{ flag: '--out', path: out, expected: 'is new' }];
  const data = (flag: string, paths: readonly (string | undefined)[]): PathCheck[] =>
    paths.flatMap((path): PathCheck[] => (path === undefined ? [] : [{ flag, path, expected: 'is data' }]));
  const file = (flag: string, path: string | undefined): PathCheck[] => (path ? [{ flag, path, expected: 'exists' }] : []);
  return [
    { flag: '--model', path: model, expected: 'exists' },
    ...data('--calibration', calibration ?? []),
    ...data('--eval', [evaluation]),
    ...file('--row-sparsities', rowSparsities),
    ...file('--layer-budget (uniform, owl, alpha, optimal or a file)', layerBudget.file),
    ...output,
  ];
}

/** The files and globs a job reads besides the checkpoint. */
export function dataFiles({ calibration = [], eval: evaluation, rowSparsities, layerBudget }: PruneSettings): string[] {
  return [...calibration, evaluation, rowSparsities, layerBudget.file || undefined].filter((path) => path !== undefined);
}

/** The trace is always written by this machine. */
function pathChecks(options: PruneOptions): PathCheck[] {
  const { traceOut } = options;
  const trace: PathCheck[] = traceOut === undefined ? [] : [{ flag: '--trace-out', path: traceOut, expected: 'folder exists' }];
  return [...localPathChecks(options), ...trace];
}
