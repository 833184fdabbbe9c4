export { backoffMs } from './backoff.js';
export {
  completeBudgetOptions,
  computedBudgetOf,
  possibleTargets,
  type AlphaBudget,
  type ComputedBudget,
  type OptimalBudget,
  type OwlBudget,
} from './budgets/computed-budget.js';
export { blockNameOf, targetsOfRatios, type GivenRatios } from './budgets/given-ratios.js';
export { fitPowerLaw } from './budgets/power-law.js';
export { splitByExponents, splitByOutliers, splitBySensitivities } from './budgets/split-sparsity.js';
export { CHECKSUM_BYTES, CHUNK_BYTES, loadHasher, type ChunkDigest, type Hasher } from './digest.js';
export {
  ERROR_CATALOGUE,
  SecateurError,
  throwIfCancelled,
  type ErrorReason,
  type FieldViolation,
  type SecateurErrorOptions,
  type StatusName,
} from './errors.js';
export { batchSequences, type MeasuredGroup } from './evaluation/batch-sequences.js';
export type { MultipleChoiceItem, ScoredChoice } from './evaluation/multiple-choice.js';
export { accuracyOf, normalizedAccuracyOf } from './evaluation/score-answers.js';
export { perplexityOf, sequenceOf, sequencesOfWindows, type ScoredSequence } from './evaluation/scored-sequence.js';
export { findTask, readQuestion, TASKS, type TaskDefinition } from './evaluation/tasks.js';
export { applyJobEvent, hasEnded, isBegun } from './jobs/job-state.js';
export {
  DEFAULT_CALIBRATION_SAMPLES,
  changesKeptWeights,
  hasDenseTargets,
  needsGramMatrices,
  pathsOf,
  resolveJobSpec,
  resolveSequenceLength,
  validateJobId,
} from './jobs/resolve-spec.js';
export { formatCpuList, parseCpuList } from './machine/cpu-list.js';
export type { ModelPlan, PlannedBlock, PlannedProjection, PlannedShard, PlannedTensor } from './model/model-plan.js';
export { parseArchitecture } from './model/parse-architecture.js';
export { parseStoredType } from './model/parse-stored-type.js';
export { planModel, plannedTensors, planShapes, type StoredTensor } from './model/plan-model.js';
export { layerOfProjection, meanTarget, projectionName, selectProjections, type ProjectionTargets } from './planning/select-projections.js';
export { allocationsAtOnce } from './planning/allocations-at-once.js';
export { assignGroups, CALIBRATION_GROUP_SAMPLES, groupSamples, splitIntoGroups } from './planning/groups.js';
export { balanceGroups, type GroupHolder, type GroupMoves } from './planning/balance-groups.js';
export { projectionCost } from './planning/projection-cost.js';
export { planStages, projectionsRun, type PruningStage } from './planning/stages.js';
export { sparsitiesOfCounts } from './planning/row-sparsities.js';
export { allocateRowsByReference, type ReferenceOptions, type ReferenceRows } from './reference/allocate-rows.js';
export type { ReferenceProjection } from './reference/projection.js';
export type { LayerMetric, RowMetric } from './reference/quality.js';
export type { ReferenceAllocation, TrimSearchOptions } from './reference/trim-search.js';
export {
  evaluateReportToJson,
  jobPlanToJson,
  pruneReportToJson,
  type EvaluateReportJson,
  type PerplexityJson,
  type ProjectionReportJson,
  type JobPlanJson,
  type PruneReportJson,
  type TaskReportJson,
} from './report/report-json.js';
export { compareRuns, requireRunReport, type LayerSummary, type RunComparison, type SideBySide } from './report/compare-runs.js';
export { meanSquaresOfPasses } from './statistics/mean-squares-of-passes.js';
export { reduceStatistics, type ReducedSite } from './statistics/reduce-statistics.js';
export { VERSION, worksWith } from './version.js';
