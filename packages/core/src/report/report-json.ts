import {
  RepairTargets,
  allocationToJSON,
  layerQualityToJSON,
  repairToJSON,
  rowQualityToJSON,
  scoreToJSON,
} from '@secateur/proto/allocation';
import type { Accuracy, EvaluateReport, PruneReport, TaskReport } from '@secateur/proto/pruning_service';
import { computeToJSON, hiddenStatesToJSON } from '@secateur/proto/model';
import type { JobPlan, MemoryItem } from '@secateur/proto/plan';
import {
  alphaMetricToJSON,
  budgetGranularityToJSON,
  LayerBudget,
  layerBudgetToJSON,
  patternToJSON,
  presetToJSON,
  propagationToJSON,
  qualityInputsToJSON,
  samplingToJSON,
  type LayerBudgetOptions,
  type ProjectionReport,
  type TokenSource,
} from '@secateur/proto/job';
import { findTask } from '../evaluation/tasks.js';
import { changesKeptWeights, pathsOf } from '../jobs/resolve-spec.js';

/** One projection in `secateur.json`. */
export interface ProjectionReportJson {
  /** Name in the checkpoint without `.weight`. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly target: number;
  readonly actual: number;
  /** In `config.layerQuality`; bigger is better. null when infinite: `snr` where nearly nothing is lost. */
  readonly baselineQuality: number | null;
  readonly bestQuality: number | null;
  /** null when uniform won, or nothing was searched. */
  readonly learningRate: number | null;
  /** null when uniform won, or nothing was searched. */
  readonly bestStep: number | null;
  readonly varianceBefore: number;
  readonly varianceAfter: number;
  readonly seconds: number;
  /** How kept weights changed; only there when they did. Errors are squared, of the output over all calibration tokens, as a share of it. */
  readonly repair?: { readonly errorBefore: number; readonly errorAfter: number; readonly damping: number };
  /** How many dropped weights came back for kept ones, and the same errors with the masks before and after; only there when that was asked for. */
  readonly swap?: { readonly swaps: number; readonly errorBefore: number; readonly errorAfter: number };
}

/** The data a model was pruned with. */
interface CalibrationReportJson {
  readonly samples: number;
  readonly seqLen: number;
  readonly tokens: number;
  readonly digest: string;
  /** SHA-256 of the ids as little-endian int32. */
  readonly sha256: string;
  /** In the order they were read. */
  readonly files: readonly string[];
  /** null for ids, which are used as they are. */
  readonly sampling: string | null;
  /** Documents that samples were taken from; null for ids. */
  readonly documents: number | null;
}

/** Content of `secateur.json`. */
export interface PruneReportJson {
  readonly model: string;
  readonly output: string;
  readonly sparsity: { readonly target: number; readonly actual: number };
  readonly config: Readonly<Record<string, unknown>>;
  readonly calibration: CalibrationReportJson;
  readonly projections: readonly ProjectionReportJson[];
  /** Names of the projections that were left out. */
  readonly skipped: readonly string[];
  readonly timings: {
    readonly seconds: Readonly<Record<string, number>>;
    readonly layerSeconds: readonly number[];
    readonly resumedLayers: number;
  };
  readonly nodes: readonly {
    readonly address: string;
    readonly name: string;
    readonly lost: string | null;
    /** Resident memory of the node's process: the most that was planned, and the most it had by the end of the job (null: not known). */
    readonly memory: { readonly plannedBytes: number; readonly peakBytes: number | null };
  }[];
  /** The engine of the first node; all nodes of a job are of one kind. */
  readonly engine: Readonly<Record<string, string | number | undefined>>;
  /** On the same data before and after pruning; only there when it was measured. */
  readonly perplexity?: { readonly dense: number; readonly pruned: number };
}

/** What `secateur eval --json` prints: the perplexity when it was measured, the tasks when there were any. */
export interface EvaluateReportJson extends Partial<PerplexityJson> {
  readonly model: string;
  readonly tasks?: readonly TaskReportJson[];
  readonly seconds: number;
}

export interface PerplexityJson {
  readonly task: 'perplexity';
  readonly perplexity: number;
  readonly windows: number;
  readonly seqLen: number;
  readonly stride: number;
}

export interface TaskReportJson {
  readonly task: string;
  /** Questions. */
  readonly n: number;
  readonly acc: number;
  readonly stderr: number;
  /** null where the task does not use it. */
  readonly accNorm: number | null;
  readonly accNormStderr: number | null;
}

export function pruneReportToJson(report: PruneReport): PruneReportJson {
  const { config } = report;
  const options = config?.options;
  return {
    model: report.model,
    output: report.output,
    sparsity: { target: report.targetSparsity, actual: report.actualSparsity },
    config: {
      score: options && lowerWord(scoreToJSON(options.score), 'SCORE_'),
      allocation: options && lowerWord(allocationToJSON(options.allocation), 'ALLOCATION_'),
      layerQuality: options && lowerWord(layerQualityToJSON(options.layerQuality), 'LAYER_QUALITY_'),
      rowQuality: options && lowerWord(rowQualityToJSON(options.rowQuality), 'ROW_QUALITY_'),
      iterations: options?.iterations,
      learningRates: options?.learningRates,
      negativeLearningRates: options?.forbidNegativeLearningRates ? [] : options?.negativeLearningRates,
      preset: config && lowerWord(presetToJSON(config.preset), 'PRESET_'),
      layerBudget: config && lowerWord(layerBudgetToJSON(config.layerBudget), 'LAYER_BUDGET_'),
      ...(config?.layerBudgetOptions && { layerBudgetOptions: budgetOptionsToJson(config.layerBudgetOptions) }),
      pattern: options?.groupPattern
        ? `${options.groupPattern.dropped}:${options.groupPattern.group}`
        : config && lowerWord(patternToJSON(config.pattern), 'PATTERN_'),
      propagation: config && lowerWord(propagationToJSON(config.propagation), 'PROPAGATION_'),
      repair: config?.repair && lowerWord(repairToJSON(config.repair.method), 'REPAIR_'),
      ...(config !== undefined && changesKeptWeights(config)
        ? { repairDamping: config.repair?.damping, repairIterations: config.repair?.iterations }
        : {}),
      ...(config?.repair?.targets === RepairTargets.DENSE && { repairTargets: 'dense' }),
      ...(config?.swap && { swap: config.swap.most }),
      compute: config && lowerWord(computeToJSON(config.compute), 'COMPUTE_'),
      hiddenStates: config && lowerWord(hiddenStatesToJSON(config.hiddenStates), 'HIDDEN_STATES_'),
      qualityInputs: config && lowerWord(qualityInputsToJSON(config.qualityInputs), 'QUALITY_INPUTS_'),
      sketches: config?.sketches || null,
      only: config?.selection?.only ?? [],
      skip: config?.selection?.skip ?? [],
      skipLayers: config?.selection?.skipLayers ?? [],
      targets: config?.selection?.targets ?? [],
      calibration: config?.calibration && givenPaths(config.calibration),
      seed: config?.calibration?.seed,
      textField: config?.calibration?.textField,
      ...(config?.evaluation === undefined ? {} : { evaluation: givenPaths(config.evaluation) }),
    },
    calibration: {
      samples: report.samples,
      seqLen: report.sequenceLength,
      tokens: report.samples * report.sequenceLength,
      digest: report.calibrationDigest,
      sha256: report.calibrationSha256,
      files: report.calibrationFiles,
      sampling: report.calibrationDocuments === 0 ? null : lowerWord(samplingToJSON(config?.calibration?.sampling ?? 0), 'SAMPLING_'),
      documents: report.calibrationDocuments || null,
    },
    projections: report.projections.map(projectionToJson),
    skipped: report.skipped,
    timings: { seconds: report.seconds, layerSeconds: report.layerSeconds, resumedLayers: report.resumedLayers },
    nodes: report.nodes.map(({ address, name, lost, plannedResidentBytes, peakResidentBytes }) => ({
      address,
      name,
      lost: lost === '' ? null : lost,
      memory: { plannedBytes: plannedResidentBytes, peakBytes: peakResidentBytes || null },
    })),
    engine: { ...report.nodes[0]?.engine },
    ...(report.perplexity === undefined ? {} : { perplexity: report.perplexity }),
  };
}

/** What `secateur plan --json` prints. */
export interface JobPlanJson {
  readonly parameters: number;
  readonly weights: number;
  readonly samples: number;
  readonly seqLen: number;
  readonly groups: number;
  readonly shards: readonly {
    readonly id: string;
    readonly bytes: number;
    readonly weights: number;
    readonly sparsity: number;
    /** `target` is 0 for those that are left out. */
    readonly projections: readonly { readonly name: string; readonly rows: number; readonly columns: number; readonly target: number }[];
  }[];
  readonly nodes: readonly {
    readonly address: string;
    readonly name: string;
    readonly groups: number;
    readonly fits: boolean;
    /** Why the node cannot take the job; null when it can. */
    readonly reason: string | null;
    /** null when nothing is asked of the node, or it cannot take the job. */
    readonly memory: {
      readonly step: string;
      readonly engine: readonly MemoryItem[];
      readonly engineBytes: number;
      readonly process: readonly MemoryItem[];
      readonly residentBytes: number;
      readonly availableBytes: number;
    } | null;
  }[];
  readonly flops: Readonly<Record<string, number>>;
  /** By the speeds that the nodes measured; null when one is not known. */
  readonly estimatedSeconds: number | null;
  /** The folder has no weights: tensors are those that config.json asks for. */
  readonly fromConfigAlone: boolean;
  /** How the sparsity is split over the layers; null in a plan that prunes nothing. */
  readonly layerBudget: string | null;
  /** False where the targets are computed from the model when the job runs; those of `shards` are then what they are on average. */
  readonly targetsKnown: boolean;
}

const COMPUTED_BUDGETS: ReadonlySet<LayerBudget> = new Set([LayerBudget.OWL, LayerBudget.ALPHA, LayerBudget.OPTIMAL]);

export function jobPlanToJson(plan: JobPlan): JobPlanJson {
  const { parameters, weights, samples, sequenceLength, groups, shards, nodes, flops, estimatedSeconds, fromConfigAlone, layerBudget } =
    plan;
  return {
    parameters,
    weights,
    samples,
    seqLen: sequenceLength,
    groups,
    shards,
    nodes: nodes.map(({ reason, memory, ...node }) => ({ ...node, reason: reason === '' ? null : reason, memory: memory ?? null })),
    flops,
    estimatedSeconds: estimatedSeconds || null,
    fromConfigAlone,
    layerBudget: layerBudget === LayerBudget.UNSPECIFIED ? null : lowerWord(layerBudgetToJSON(layerBudget), 'LAYER_BUDGET_'),
    targetsKnown: !COMPUTED_BUDGETS.has(layerBudget),
  };
}

export function evaluateReportToJson(report: EvaluateReport): EvaluateReportJson {
  const { model, perplexity, windows, sequenceLength, stride, tasks, seconds } = report;
  return {
    model,
    ...(windows === 0 ? {} : { task: 'perplexity', perplexity, windows, seqLen: sequenceLength, stride }),
    ...(tasks.length === 0 ? {} : { tasks: tasks.map(taskToJson) }),
    seconds,
  };
}

function taskToJson({ task, questions, accuracy, normalizedAccuracy }: TaskReport): TaskReportJson {
  const { value: acc, standardError: stderr } = accuracy ?? NO_ACCURACY;
  return {
    task: findTask(task).name,
    n: questions,
    acc,
    stderr,
    accNorm: normalizedAccuracy?.value ?? null,
    accNormStderr: normalizedAccuracy?.standardError ?? null,
  };
}

const NO_ACCURACY: Accuracy = { value: 0, standardError: 0 };

function projectionToJson({ name, rows, columns, target, actual, record, seconds, repair, swap }: ProjectionReport): ProjectionReportJson {
  return {
    name,
    rows,
    columns,
    target,
    actual,
    baselineQuality: finiteOrNull(record?.baselineQuality ?? 0),
    bestQuality: finiteOrNull(record?.bestQuality ?? 0),
    learningRate: record?.learningRate ?? null,
    bestStep: record?.bestStep ?? null,
    varianceBefore: record?.varianceBefore ?? 0,
    varianceAfter: record?.varianceAfter ?? 0,
    seconds,
    ...(repair === undefined ? {} : { repair }),
    ...(swap === undefined ? {} : { swap }),
  };
}

function budgetOptionsToJson({ owl, alpha, optimal, file }: LayerBudgetOptions): Readonly<Record<string, unknown>> {
  if (optimal !== undefined) return { spread: optimal.spread, samples: optimal.samples };
  if (owl !== undefined) return { lambda: owl.lambda, threshold: owl.threshold };
  if (alpha === undefined) return { file };
  return {
    metric: lowerWord(alphaMetricToJSON(alpha.metric), 'ALPHA_METRIC_'),
    epsilon: alpha.epsilon,
    per: lowerWord(budgetGranularityToJSON(alpha.granularity), 'BUDGET_GRANULARITY_'),
  };
}

/** JSON has no infinity. */
function finiteOrNull(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

/** One path as it is, several as a list. */
function givenPaths(source: TokenSource): string | readonly string[] {
  const paths = pathsOf(source);
  return paths.length === 1 ? (paths[0] ?? '') : paths;
}

/** `SCORE_WANDA` → `wanda`. */
function lowerWord(enumName: string, prefix: string): string {
  return enumName.replace(prefix, '').toLowerCase();
}
