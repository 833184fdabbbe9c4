import { SecateurError } from '@secateur/core';
import {
  allocationFromJSON,
  layerQualityFromJSON,
  repairFromJSON,
  repairTargetsFromJSON,
  rowQualityFromJSON,
  scoreFromJSON,
} from '@secateur/proto/allocation';
import {
  alphaMetricFromJSON,
  budgetGranularityFromJSON,
  JobSpec,
  layerBudgetFromJSON,
  Pattern,
  presetFromJSON,
  propagationFromJSON,
  qualityInputsFromJSON,
  samplingFromJSON,
  type LayerBudgetOptions,
  type TokenSource,
} from '@secateur/proto/job';
import { computeFromJSON, hiddenStatesFromJSON } from '@secateur/proto/model';
import type { PruneJobData, PruneJobSpec } from './prune-job.js';

/** Words that are not those of the enum. */
const PROPAGATIONS: Readonly<Record<string, string>> = { published: 'dense-block', recalculated: 'recalculated-inputs' };

/** The job that a PruneJob asks for. What it leaves out is left to the service; INVALID_REQUEST where a word is not known to this version. */
export function jobSpecOf(spec: PruneJobSpec): JobSpec {
  const { pattern, repair, propagation } = spec;
  const groupPattern = pattern === undefined || pattern === 'unstructured' ? undefined : groupPatternOf(pattern);
  return JobSpec.fromPartial({
    kind: {
      $case: 'prune',
      value: {
        model: spec.model,
        output: spec.output,
        sparsity: spec.sparsity,
        preset: value('preset', spec.preset, 'PRESET', presetFromJSON),
        options: {
          score: value('score', spec.score, 'SCORE', scoreFromJSON),
          allocation: value('allocation', spec.allocation, 'ALLOCATION', allocationFromJSON),
          iterations: spec.iterations ?? 0,
          learningRates: [...(spec.learningRates ?? [])],
          negativeLearningRates: [...(spec.negativeLearningRates ?? [])],
          forbidNegativeLearningRates: spec.forbidNegativeLearningRates ?? false,
          groupPattern,
          layerQuality: value('layerQuality', spec.layerQuality, 'LAYER_QUALITY', layerQualityFromJSON),
          rowQuality: value('rowQuality', spec.rowQuality, 'ROW_QUALITY', rowQualityFromJSON),
        },
        layerBudget: value('layerBudget', spec.layerBudget, 'LAYER_BUDGET', layerBudgetFromJSON),
        layerBudgetOptions: budgetOptionsOf(spec.layerBudgetOptions),
        pattern: groupPattern === undefined ? Pattern.UNSTRUCTURED : Pattern.GROUPED,
        calibration: tokenSourceOf('calibration', spec.calibration),
        evaluation: spec.evaluation && tokenSourceOf('evaluation', spec.evaluation),
        compute: value('compute', spec.compute, 'COMPUTE', computeFromJSON),
        hiddenStates: value('hiddenStates', spec.hiddenStates, 'HIDDEN_STATES', hiddenStatesFromJSON),
        rowSparsities: spec.rowSparsities ?? '',
        selection: spec.selection && { ...spec.selection, targets: [...(spec.selection.targets ?? [])] },
        qualityInputs: value('qualityInputs', spec.qualityInputs, 'QUALITY_INPUTS', qualityInputsFromJSON),
        sketches: spec.sketches ?? 0,
        propagation: value('propagation', propagation && (PROPAGATIONS[propagation] ?? propagation), 'PROPAGATION', propagationFromJSON),
        repair: repair && {
          method: value('repair.method', repair.method, 'REPAIR', repairFromJSON),
          damping: repair.damping ?? 0,
          iterations: repair.iterations ?? 0,
          targets: value('repair.targets', repair.targets, 'REPAIR_TARGETS', repairTargetsFromJSON),
        },
        swap: spec.swap && { most: spec.swap.most ?? 0 },
        snapshotEvery: spec.snapshotEvery ?? 0,
      },
    },
    recordTrace: spec.recordTrace ?? false,
    maximumNodes: spec.maximumNodes ?? 0,
    priority: spec.priority ?? 0,
    maximumAttempts: spec.maximumAttempts ?? 0,
    timeToLiveSeconds: spec.timeToLiveSeconds ?? 0,
    deleteOutput: spec.deleteOutput ?? false,
  });
}

function tokenSourceOf(field: string, data: PruneJobData): TokenSource {
  const [path = '', ...morePaths] = data.paths;
  return {
    path,
    morePaths,
    samples: data.samples ?? 0,
    sequenceLength: data.sequenceLength ?? 0,
    seed: data.seed ?? 0,
    sampling: value(`${field}.sampling`, data.sampling, 'SAMPLING', samplingFromJSON),
    textField: data.textField ?? '',
  };
}

function budgetOptionsOf(options: PruneJobSpec['layerBudgetOptions']): LayerBudgetOptions | undefined {
  if (options === undefined) return undefined;
  const { owl, alpha, optimal, file = '' } = options;
  const path = 'layerBudgetOptions.alpha';
  return {
    owl: owl && { lambda: owl.lambda ?? 0, threshold: owl.threshold ?? 0 },
    alpha: alpha && {
      metric: value(`${path}.metric`, alpha.metric, 'ALPHA_METRIC', alphaMetricFromJSON),
      epsilon: alpha.epsilon ?? 0,
      granularity: value(`${path}.granularity`, alpha.granularity, 'BUDGET_GRANULARITY', budgetGranularityFromJSON),
    },
    optimal: optimal && { spread: optimal.spread ?? 0, samples: optimal.samples ?? 0 },
    file,
  };
}

/** `2:4`, which drops 2 of 4. */
function groupPatternOf(text: string): { dropped: number; group: number } {
  const [dropped, group] = text.split(':').map(Number);
  if (dropped === undefined || group === undefined) return refuse('pattern', text);
  return { dropped, group };
}

/** `wanda-variant` → SCORE_WANDA_VARIANT; not set where there is no word. */
function value<Enum extends number>(field: string, word: string | undefined, prefix: string, fromName: (name: string) => Enum): Enum {
  const known = fromName(`${prefix}_${(word ?? 'unspecified').toUpperCase().replaceAll('-', '_')}`);
  return known < 0 ? refuse(field, word ?? '') : known;
}

function refuse(field: string, given: string): never {
  const violation = { field, description: `is ${JSON.stringify(given)}, which this version does not know` };
  throw new SecateurError('INVALID_REQUEST', `${violation.field} ${violation.description}.`, { violations: [violation] });
}
