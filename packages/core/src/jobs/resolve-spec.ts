import {
  Allocation,
  type AllocationOptions,
  LayerQuality,
  Repair,
  RepairTargets,
  type RepairOptions,
  RowQuality,
  Score,
  type SwapOptions,
} from '@secateur/proto/allocation';
import { Compute, HiddenStates } from '@secateur/proto/model';
import type { OptimalOptions } from '@secateur/proto/job';
import {
  AlphaMetric,
  AlphaOptions,
  BudgetGranularity,
  LayerBudget,
  Pattern,
  Preset,
  Propagation,
  QualityInputs,
  Sampling,
  TokenSource,
  type EvaluateSpec,
  type JobSpec,
  type LayerBudgetOptions,
  type OwlOptions,
  type PruneSpec,
} from '@secateur/proto/job';
import type { Architecture } from '@secateur/proto/model';
import { SecateurError, type FieldViolation } from '../errors.js';
import { TASKS } from '../evaluation/tasks.js';
import { withPreset } from './preset.js';
import { findSelectionViolations } from '../planning/select-projections.js';

const COMPUTES: readonly Compute[] = [Compute.F32, Compute.BF16, Compute.F16];

/** Defaults of the published code. */
const DEFAULT_ITERATIONS = 10;
const DEFAULT_LEARNING_RATES: readonly number[] = [0.01, 0.02, 0.04, 0.08, 0.12, 0.16];
const DEFAULT_NEGATIVE_LEARNING_RATES: readonly number[] = [-0.01, -0.02, -0.04];
const DEFAULT_OWL_LAMBDA = 0.05;
const DEFAULT_OWL_THRESHOLD = 7;
const DEFAULT_SPREAD = 0.15;
const DEFAULT_SENSITIVITY_SAMPLES = 8;
const DEFAULT_SKETCHES = 4;
const DEFAULT_SEQUENCE_LENGTH = 2048;
/** Samples of text that a job calibrates with where none were asked for. */
export const DEFAULT_CALIBRATION_SAMPLES = 256;
const DEFAULT_TEXT_FIELD = 'text';

const MAXIMUM_SAMPLES = 65_536;
const MAXIMUM_SEQUENCE_LENGTH = 131_072;
const MAXIMUM_ITERATIONS = 1000;
const DEFAULT_DAMPING = 0.01;
const DEFAULT_FIT_ITERATIONS = 20;
const DEFAULT_SWAPS = 0.25;
const MAXIMUM_LEARNING_RATES = 100;
const MAXIMUM_GROUP = 1024;
const MAXIMUM_PRIORITY = 1000;
const MAXIMUM_ATTEMPTS = 100;
/** The engine's. */
const MAXIMUM_SKETCHES = 8;
/** Far above any score, so that what is no threshold is told. */
const MAXIMUM_THRESHOLD = 1e6;

const SCORES: ReadonlySet<Score> = new Set<Score>([Score.WANDA, Score.MAGNITUDE, Score.WANDA_VARIANT, Score.SPARSEGPT]);
const PRESETS: ReadonlySet<Preset> = new Set<Preset>([Preset.PUBLISHED, Preset.FAST, Preset.BEST]);
const PROPAGATIONS: ReadonlySet<Propagation> = new Set<Propagation>([
  Propagation.DENSE_BLOCK,
  Propagation.RECALCULATED_INPUTS,
  Propagation.STAGED,
]);
const REPAIRS: ReadonlySet<Repair> = new Set<Repair>([Repair.NONE, Repair.FIT, Repair.ADMM]);
const REPAIR_TARGETS: ReadonlySet<RepairTargets> = new Set<RepairTargets>([RepairTargets.OWN, RepairTargets.DENSE]);
const ALLOCATIONS: ReadonlySet<Allocation> = new Set<Allocation>([
  Allocation.TRIM,
  Allocation.UNIFORM,
  Allocation.GIVEN,
  Allocation.OPTIMAL,
]);

const LAYER_BUDGETS: ReadonlySet<LayerBudget> = new Set<LayerBudget>([
  LayerBudget.UNIFORM,
  LayerBudget.OWL,
  LayerBudget.ALPHA,
  LayerBudget.GIVEN,
  LayerBudget.OPTIMAL,
]);
const ALPHA_METRICS: ReadonlySet<AlphaMetric> = new Set<AlphaMetric>([AlphaMetric.PEAK, AlphaMetric.MID]);
const GRANULARITIES: ReadonlySet<BudgetGranularity> = new Set<BudgetGranularity>([BudgetGranularity.BLOCK, BudgetGranularity.PROJECTION]);
const LAYER_QUALITIES: ReadonlySet<LayerQuality> = new Set<LayerQuality>([
  LayerQuality.COSIM_FLAT,
  LayerQuality.COSIM_DIM,
  LayerQuality.COSIM_SAMPLE,
  LayerQuality.MSE,
  LayerQuality.MSE_DIM,
  LayerQuality.MAE,
  LayerQuality.SNR,
  LayerQuality.PSNR_FLAT,
  LayerQuality.PSNR_DIM,
  LayerQuality.PSNR_SAMPLE,
  LayerQuality.PASS,
]);
const ROW_QUALITIES: ReadonlySet<RowQuality> = new Set<RowQuality>([RowQuality.COSIM, RowQuality.MSE, RowQuality.PSNR]);

/** Data of which only the default amounts are known. */
const NO_SOURCE: TokenSource = TokenSource.fromPartial({});

/** Collects everything that is wrong, so that callers can mend it at once. */
class Violations {
  private readonly found: FieldViolation[] = [];

  require(condition: boolean, field: string, description: string): void {
    if (!condition) this.found.push({ field, description });
  }

  add(violations: readonly FieldViolation[]): void {
    this.found.push(...violations);
  }

  throwIfAny(): void {
    if (this.found.length === 0) return;
    const text = this.found.map(({ field, description }) => `${field} ${description}`).join('; ');
    throw new SecateurError('INVALID_REQUEST', `The job cannot be run: ${text}.`, { violations: this.found });
  }
}

/** A spec with every default filled in, or INVALID_REQUEST with all violations. To plan pruning, neither output nor data need to be named. */
export function resolveJobSpec(spec: JobSpec, purpose: 'run' | 'plan' = 'run'): JobSpec {
  const violations = new Violations();
  const resolved = resolveKind(spec, purpose, violations);
  violations.require(Math.abs(spec.priority) <= MAXIMUM_PRIORITY, 'priority', `must be from -${MAXIMUM_PRIORITY} to ${MAXIMUM_PRIORITY}`);
  violations.require(spec.maximumAttempts <= MAXIMUM_ATTEMPTS, 'maximum_attempts', `must be at most ${MAXIMUM_ATTEMPTS}`);
  violations.throwIfAny();
  return resolved;
}

/** Tokens per sample: as asked, or the smaller of 2048 and what the model takes when 0. */
export function resolveSequenceLength(requested: number, architecture: Architecture): number {
  const { maximumPositions } = architecture;
  if (requested > maximumPositions) {
    throw new SecateurError(
      'INVALID_REQUEST',
      `A sequence length of ${requested} was asked for; the model takes at most ${maximumPositions} tokens.`,
    );
  }
  return requested === 0 ? Math.min(DEFAULT_SEQUENCE_LENGTH, maximumPositions) : requested;
}

/** All files and globs of a source. */
export function pathsOf({ path, morePaths }: TokenSource): string[] {
  return [path, ...morePaths].filter((given) => given !== '');
}

/** Throws INVALID_REQUEST unless an id is 1-63 letters, digits, `-` or `_`. */
export function validateJobId(jobId: string): void {
  const violations = new Violations();
  violations.require(/^[A-Za-z0-9_-]{1,63}$/.test(jobId), 'job_id', 'must be 1-63 letters, digits, - or _');
  violations.throwIfAny();
}

function resolveKind(spec: JobSpec, purpose: 'run' | 'plan', violations: Violations): JobSpec {
  switch (spec.kind?.$case) {
    case 'prune':
      return { ...spec, kind: { $case: 'prune', value: resolvePrune(spec.kind.value, purpose, violations) } };
    case 'evaluate':
      return { ...spec, kind: { $case: 'evaluate', value: resolveEvaluate(spec.kind.value, violations) } };
    case undefined:
      violations.require(false, 'kind', 'must be prune or evaluate');
      return spec;
  }
}

function resolvePrune(given: PruneSpec, purpose: 'run' | 'plan', violations: Violations): PruneSpec {
  const preset = given.preset || Preset.PUBLISHED;
  violations.require(PRESETS.has(preset), 'prune.preset', 'must be published, fast or best');
  const spec = withPreset({ ...given, preset });
  violations.require(spec.model !== '', 'prune.model', 'must name the folder of a checkpoint');
  violations.require(spec.output !== '' || purpose === 'plan', 'prune.output', 'must name the folder to write');
  violations.require(spec.sparsity > 0 && spec.sparsity < 1, 'prune.sparsity', `must be above 0 and below 1, not ${spec.sparsity}`);
  const layerBudget = spec.layerBudget || (spec.layerBudgetOptions?.file ? LayerBudget.GIVEN : LayerBudget.UNIFORM);
  const layerBudgetOptions = resolveLayerBudget(layerBudget, spec.layerBudgetOptions, violations);
  const pattern = spec.pattern === Pattern.UNSPECIFIED ? Pattern.UNSTRUCTURED : spec.pattern;
  const propagation = spec.propagation || Propagation.DENSE_BLOCK;
  violations.require(
    PROPAGATIONS.has(propagation),
    'prune.propagation',
    `must be dense-block, recalculated-inputs or staged, not ${propagation}`,
  );
  const rowsGiven = spec.rowSparsities !== '';
  const options = resolveOptions(spec.options, { given: rowsGiven }, violations);
  checkPattern(spec, pattern, options, violations);
  violations.require(
    rowsGiven === (options.allocation === Allocation.GIVEN),
    'prune.row_sparsities',
    rowsGiven ? 'can only be given with the allocation given' : 'must name a file with the allocation given',
  );
  violations.require(
    layerBudget === LayerBudget.UNIFORM || (!rowsGiven && options.groupPattern === undefined && !spec.selection?.targets.length),
    'prune.layer_budget',
    'must be uniform where a pattern, given row sparsities or targets of the selection decide how much each projection drops',
  );
  const repair = resolveRepair(spec.repair, options, propagation, violations);
  const swap = resolveSwap(spec.swap, options, repair.method, violations);
  violations.require(
    swap === undefined || spec.calibration?.samples !== 1,
    'prune.calibration.samples',
    'must be at least 2 with swaps, for some samples are held out to tell how many swaps to make',
  );
  const qualityInputs = spec.qualityInputs === QualityInputs.UNSPECIFIED ? QualityInputs.LAST : spec.qualityInputs;
  if (spec.selection !== undefined) violations.add(findSelectionViolations(spec.selection));
  violations.require(
    spec.selection === undefined || spec.selection.targets.length === 0 || (!rowsGiven && options.groupPattern === undefined),
    'prune.selection.targets',
    'must be empty where a pattern or given row sparsities decide what is dropped',
  );
  return {
    ...spec,
    layerBudget,
    layerBudgetOptions,
    pattern,
    propagation,
    compute: resolveCompute(spec.compute, 'prune.compute', violations),
    hiddenStates: resolveHiddenStates(spec.hiddenStates, 'prune.hidden_states', violations),
    options,
    repair,
    swap,
    qualityInputs,
    sketches: resolveSketches(spec.sketches, qualityInputs, violations),
    calibration: resolveCalibration(spec.calibration, purpose === 'plan', violations),
    evaluation: spec.evaluation && resolveSource(spec.evaluation, 'prune.evaluation', false, violations),
  };
}

/** The settings of the budget that was chosen; settings of others are refused, for they would do nothing. */
function resolveLayerBudget(
  budget: LayerBudget,
  options: LayerBudgetOptions | undefined,
  violations: Violations,
): LayerBudgetOptions | undefined {
  const { owl, alpha, optimal, file = '' } = options ?? {};
  const field = 'prune.layer_budget_options';
  violations.require(LAYER_BUDGETS.has(budget), 'prune.layer_budget', 'must be uniform, owl, alpha, optimal or given');
  violations.require(owl === undefined || budget === LayerBudget.OWL, `${field}.owl`, 'can only be set with the layer budget owl');
  violations.require(alpha === undefined || budget === LayerBudget.ALPHA, `${field}.alpha`, 'can only be set with the layer budget alpha');
  violations.require(
    optimal === undefined || budget === LayerBudget.OPTIMAL,
    `${field}.optimal`,
    'can only be set with the layer budget optimal',
  );
  violations.require(
    (file !== '') === (budget === LayerBudget.GIVEN),
    `${field}.file`,
    file === '' ? 'must name a file with the layer budget given' : 'can only be set with the layer budget given',
  );
  const none = { owl: undefined, alpha: undefined, optimal: undefined, file: '' };
  switch (budget) {
    case LayerBudget.OWL:
      return { ...none, owl: resolveOwl(owl, `${field}.owl`, violations) };
    case LayerBudget.ALPHA:
      return { ...none, alpha: resolveAlpha(alpha, `${field}.alpha`, violations) };
    case LayerBudget.OPTIMAL:
      return { ...none, optimal: resolveOptimal(optimal, `${field}.optimal`, violations) };
    case LayerBudget.GIVEN:
      return { ...none, file };
    default:
      return undefined;
  }
}

function resolveOptimal(optimal: OptimalOptions | undefined, field: string, violations: Violations): OptimalOptions {
  const spread = givenOr(DEFAULT_SPREAD, optimal?.spread);
  const samples = givenOr(DEFAULT_SENSITIVITY_SAMPLES, optimal?.samples);
  violations.require(spread > 0 && spread < 1, `${field}.spread`, `must be above 0 and below 1, not ${spread}`);
  return { spread, samples };
}

function resolveOwl(owl: OwlOptions | undefined, field: string, violations: Violations): OwlOptions {
  const lambda = givenOr(DEFAULT_OWL_LAMBDA, owl?.lambda);
  const threshold = givenOr(DEFAULT_OWL_THRESHOLD, owl?.threshold);
  violations.require(lambda > 0 && lambda < 0.5, `${field}.lambda`, `must be above 0 and below 0.5, not ${lambda}`);
  violations.require(
    threshold > 0 && threshold <= MAXIMUM_THRESHOLD,
    `${field}.threshold`,
    `must be above 0 and at most ${MAXIMUM_THRESHOLD}, not ${threshold}`,
  );
  return { lambda, threshold };
}

/** Zero means that nothing was given. */
function givenOr(fallback: number, value = 0): number {
  return value === 0 ? fallback : value;
}

/** An epsilon of 0 stays, for its default depends on the model. */
function resolveAlpha(alpha: AlphaOptions | undefined, field: string, violations: Violations): AlphaOptions {
  const { metric, epsilon, granularity } = alpha ?? AlphaOptions.fromPartial({});
  const resolved = { metric: metric || AlphaMetric.PEAK, epsilon, granularity: granularity || BudgetGranularity.BLOCK };
  violations.require(ALPHA_METRICS.has(resolved.metric), `${field}.metric`, 'must be peak or mid');
  violations.require(GRANULARITIES.has(resolved.granularity), `${field}.granularity`, 'must be block or projection');
  violations.require(epsilon >= 0 && epsilon < 1, `${field}.epsilon`, `must be above 0 and below 1, not ${epsilon}`);
  return resolved;
}

function resolveSketches(given: number, qualityInputs: QualityInputs, violations: Violations): number {
  switch (qualityInputs) {
    case QualityInputs.LAST:
      violations.require(given === 0, 'prune.sketches', 'can only be given with the quality inputs all');
      return 0;
    case QualityInputs.ALL:
      violations.require(given <= MAXIMUM_SKETCHES, 'prune.sketches', `must be at most ${MAXIMUM_SKETCHES}, not ${given}`);
      return given || DEFAULT_SKETCHES;
    default:
      violations.require(false, 'prune.quality_inputs', 'must be last or all');
      return given;
  }
}

/** A pattern of groups decides everything but the scores. */
function checkPattern(
  spec: PruneSpec,
  pattern: Pattern,
  { groupPattern, allocation, score }: AllocationOptions,
  violations: Violations,
): void {
  violations.require(pattern === Pattern.UNSTRUCTURED || pattern === Pattern.GROUPED, 'prune.pattern', 'must be unstructured or grouped');
  const matches = (pattern === Pattern.GROUPED) === (groupPattern !== undefined);
  violations.require(matches, 'prune.options.group_pattern', 'must be set with the pattern grouped, and only then');
  if (groupPattern === undefined || !matches) return;
  const { dropped, group } = groupPattern;
  const name = `${dropped}:${group}`;
  if (dropped < 1 || dropped >= group || group > MAXIMUM_GROUP) {
    violations.require(false, 'prune.pattern', `must drop at least 1 of up to ${MAXIMUM_GROUP} weights and not all of them, not ${name}`);
    return;
  }
  const share = dropped / group;
  violations.require(
    Math.abs(spec.sparsity - share) < 1e-6,
    'prune.sparsity',
    `must be ${share} with the pattern ${name}, not ${spec.sparsity}`,
  );
  violations.require(allocation === Allocation.UNIFORM, 'prune.options.allocation', `must be uniform with the pattern ${name}`);
  violations.require(
    score === Score.WANDA || score === Score.MAGNITUDE,
    'prune.options.score',
    `must be wanda or magnitude with the pattern ${name}`,
  );
}

/** Whether kept weights change. */
export function changesKeptWeights({ options, repair }: Pick<PruneSpec, 'options' | 'repair'>): boolean {
  return options?.score === Score.SPARSEGPT || (repair !== undefined && repair.method !== Repair.NONE);
}

/** Whether projections are swapped or repaired by the Gram matrices of their inputs. */
export function needsGramMatrices(spec: Pick<PruneSpec, 'options' | 'repair' | 'swap'>): boolean {
  return spec.swap !== undefined || changesKeptWeights(spec);
}

/** Whether repairs bring the model back to the dense one. */
export function hasDenseTargets({ repair }: Pick<PruneSpec, 'repair'>): boolean {
  return repair?.targets === RepairTargets.DENSE;
}

/** Rejects swaps of masks that other options choose. */
function resolveSwap(
  given: SwapOptions | undefined,
  { score, groupPattern }: AllocationOptions,
  repair: Repair,
  violations: Violations,
): SwapOptions | undefined {
  if (given === undefined) return undefined;
  const field = 'prune.swap';
  const most = given.most || DEFAULT_SWAPS;
  violations.require(most > 0 && most <= 1, `${field}.most`, `must be above 0 and up to 1, not ${given.most}`);
  violations.require(score !== Score.SPARSEGPT, field, 'must be left out with the score sparsegpt, which chooses itself what is dropped');
  violations.require(repair !== Repair.ADMM, field, 'must be left out with the repair admm, which chooses itself what is dropped; use fit');
  violations.require(groupPattern === undefined, field, 'must be left out with a pattern, which swaps would break');
  return { most };
}

function resolveRepair(
  given: RepairOptions | undefined,
  options: AllocationOptions,
  propagation: Propagation,
  violations: Violations,
): RepairOptions {
  const method = given?.method || Repair.NONE;
  const damping = given?.damping || DEFAULT_DAMPING;
  const iterations = given?.iterations || DEFAULT_FIT_ITERATIONS;
  violations.require(REPAIRS.has(method), 'prune.repair.method', 'must be none, fit or admm');
  violations.require(damping > 0 && damping <= 10, 'prune.repair.damping', `must be above 0 and up to 10, not ${damping}`);
  violations.require(
    iterations <= MAXIMUM_ITERATIONS,
    'prune.repair.iterations',
    `must be at most ${MAXIMUM_ITERATIONS}, not ${iterations}`,
  );
  violations.require(
    method === Repair.NONE || options.score !== Score.SPARSEGPT,
    'prune.repair.method',
    'must be none with the score sparsegpt, which repairs by itself',
  );
  violations.require(
    method !== Repair.ADMM || options.groupPattern === undefined,
    'prune.repair.method',
    'must be none or fit with a pattern; admm chooses itself what is dropped',
  );
  const targets = given?.targets || RepairTargets.OWN;
  violations.require(REPAIR_TARGETS.has(targets), 'prune.repair.targets', 'must be own or dense');
  violations.require(
    targets !== RepairTargets.DENSE || method !== Repair.NONE,
    'prune.repair.targets',
    'must be own where nothing is fitted; choose the repair fit or admm',
  );
  violations.require(
    targets !== RepairTargets.DENSE || propagation === Propagation.STAGED,
    'prune.repair.targets',
    'must be own without the propagation staged: what was pruned before in the same block would not be made up for, or twice',
  );
  return { method, damping, iterations, targets };
}

function resolveEvaluate(spec: EvaluateSpec, violations: Violations): EvaluateSpec {
  violations.require(spec.model !== '', 'evaluate.model', 'must name the folder of a checkpoint');
  const { data, tasks, stride } = spec;
  violations.require(
    stride === 0 || (data !== undefined && (data.sequenceLength === 0 || stride <= data.sequenceLength)),
    'evaluate.stride',
    `must be at most the tokens of a window of evaluate.data, not ${stride}`,
  );
  for (const [index, { task, path }] of tasks.entries()) {
    violations.require(
      TASKS.has(task),
      `evaluate.tasks[${index}].task`,
      `must be ${[...TASKS.values()].map(({ name }) => name).join(', ')}`,
    );
    violations.require(path !== '', `evaluate.tasks[${index}].path`, 'must name a .jsonl file');
    const isFirst = tasks.findIndex((other) => other.task === task) === index;
    violations.require(isFirst, `evaluate.tasks[${index}].task`, 'must be another than those before');
  }
  return {
    ...spec,
    // Without a task there must be data.
    data: data === undefined && tasks.length > 0 ? undefined : resolveSource(data, 'evaluate.data', false, violations),
    compute: resolveCompute(spec.compute, 'evaluate.compute', violations),
    hiddenStates: resolveHiddenStates(spec.hiddenStates, 'evaluate.hidden_states', violations),
  };
}

function resolveCompute(given: Compute, field: string, violations: Violations): Compute {
  const compute = given === Compute.UNSPECIFIED ? Compute.F32 : given;
  violations.require(COMPUTES.includes(compute), field, 'must be f32, bf16 or f16');
  return compute;
}

function resolveHiddenStates(given: HiddenStates, field: string, violations: Violations): HiddenStates {
  const hiddenStates = given === HiddenStates.UNSPECIFIED ? HiddenStates.F32 : given;
  violations.require(hiddenStates === HiddenStates.F32 || hiddenStates === HiddenStates.BF16, field, 'must be f32 or bf16');
  return hiddenStates;
}

/** Text to measure with is never sampled, so only calibration data has a sampling. */
function resolveCalibration(source: TokenSource | undefined, mayBeUnnamed: boolean, violations: Violations): TokenSource | undefined {
  const resolved = resolveSource(source, 'prune.calibration', mayBeUnnamed, violations);
  if (resolved === undefined) return undefined;
  const sampling = resolved.sampling === Sampling.UNSPECIFIED ? Sampling.DOCUMENTS : resolved.sampling;
  violations.require(
    sampling === Sampling.DOCUMENTS || sampling === Sampling.CONCATENATED,
    'prune.calibration.sampling',
    'must be documents or concatenated',
  );
  return { ...resolved, sampling };
}

function resolveSource(
  given: TokenSource | undefined,
  field: string,
  mayBeUnnamed: boolean,
  violations: Violations,
): TokenSource | undefined {
  const source = given ?? (mayBeUnnamed ? NO_SOURCE : undefined);
  violations.require(
    mayBeUnnamed || (source !== undefined && pathsOf(source).length > 0),
    `${field}.path`,
    'must name a .txt, .raw, .jsonl, .parquet or .safetensors file',
  );
  if (source === undefined) return undefined;
  violations.require(source.samples <= MAXIMUM_SAMPLES, `${field}.samples`, `must be at most ${MAXIMUM_SAMPLES}, not ${source.samples}`);
  violations.require(
    source.sequenceLength !== 1 && source.sequenceLength <= MAXIMUM_SEQUENCE_LENGTH,
    `${field}.sequence_length`,
    `must be from 2 to ${MAXIMUM_SEQUENCE_LENGTH}, not ${source.sequenceLength}`,
  );
  return { ...source, textField: source.textField || DEFAULT_TEXT_FIELD };
}

/** What decides the rows when nobody says: row sparsities that are given, else TRIM's search, where it applies. */
function defaultAllocation(score: Score, grouped: boolean, given: boolean): Allocation {
  if (given) return Allocation.GIVEN;
  return grouped || score === Score.WANDA_VARIANT ? Allocation.UNIFORM : Allocation.TRIM;
}

function resolveOptions(
  options: AllocationOptions | undefined,
  { given }: { readonly given: boolean },
  violations: Violations,
): AllocationOptions {
  // Zero and an empty list mean that nothing was given.
  const score = options?.score || Score.WANDA;
  const allocation = options?.allocation || defaultAllocation(score, options?.groupPattern !== undefined, given);
  const iterations = options?.iterations || DEFAULT_ITERATIONS;
  const learningRates = options?.learningRates.length ? options.learningRates : [...DEFAULT_LEARNING_RATES];
  const negativeLearningRates = options?.negativeLearningRates.length
    ? options.negativeLearningRates
    : [...DEFAULT_NEGATIVE_LEARNING_RATES];
  const field = 'prune.options';
  violations.require(SCORES.has(score), `${field}.score`, 'must be wanda, magnitude, wanda-variant or sparsegpt');
  violations.require(ALLOCATIONS.has(allocation), `${field}.allocation`, 'must be trim, uniform, optimal or given');
  violations.require(
    score !== Score.WANDA_VARIANT || allocation === Allocation.UNIFORM,
    `${field}.allocation`,
    'must be uniform when the score is wanda-variant, which decides itself what every row drops',
  );
  violations.require(iterations <= MAXIMUM_ITERATIONS, `${field}.iterations`, `must be at most ${MAXIMUM_ITERATIONS}, not ${iterations}`);
  const layerQuality = options?.layerQuality || LayerQuality.COSIM_FLAT;
  const rowQuality = options?.rowQuality || RowQuality.COSIM;
  const searches = allocation === Allocation.TRIM;
  violations.require(
    LAYER_QUALITIES.has(layerQuality),
    `${field}.layer_quality`,
    'must be cosim-flat, cosim-dim, cosim-sample, mse, mse-dim, mae, snr, psnr-flat, psnr-dim, psnr-sample or pass',
  );
  violations.require(
    searches || layerQuality === LayerQuality.COSIM_FLAT,
    `${field}.layer_quality`,
    'must be left out unless the allocation is trim, which alone searches by it',
  );
  violations.require(ROW_QUALITIES.has(rowQuality), `${field}.row_quality`, 'must be cosim, mse or psnr');
  violations.require(
    searches || rowQuality === RowQuality.COSIM,
    `${field}.row_quality`,
    'must be left out unless the allocation is trim, which alone searches by it',
  );
  const inRange = (rates: readonly number[], sign: 1 | -1): boolean =>
    rates.length <= MAXIMUM_LEARNING_RATES && rates.every((rate) => rate * sign > 0 && Math.abs(rate) <= 1);
  violations.require(
    inRange(learningRates, 1),
    `${field}.learning_rates`,
    `must be at most ${MAXIMUM_LEARNING_RATES} numbers above 0 and up to 1`,
  );
  violations.require(
    inRange(negativeLearningRates, -1),
    `${field}.negative_learning_rates`,
    `must be at most ${MAXIMUM_LEARNING_RATES} numbers below 0 and down to -1`,
  );
  return {
    score,
    allocation,
    iterations,
    learningRates,
    negativeLearningRates,
    forbidNegativeLearningRates: options?.forbidNegativeLearningRates ?? false,
    groupPattern: options?.groupPattern,
    layerQuality,
    rowQuality,
  };
}
