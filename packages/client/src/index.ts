/** All that a program needs to use the service: the client, its errors, and whatever its methods take and give. */
export { SecateurError, type ErrorReason, type FieldViolation, type SecateurErrorOptions, type StatusName } from '@secateur/core';
export {
  Allocation,
  LayerQuality,
  Repair,
  RepairTargets,
  RowQuality,
  Score,
  type AllocationOptions,
  type AllocationRecord,
  type GroupPattern,
  type RepairOptions,
  type RepairRecord,
  type SwapOptions,
  type SwapRecord,
} from '@secateur/proto/allocation';
export type { Any } from '@secateur/proto/google/protobuf/any';
export type { Timestamp } from '@secateur/proto/google/protobuf/timestamp';
export type { Status } from '@secateur/proto/google/rpc/status';
export {
  AlphaMetric,
  BudgetGranularity,
  JobState,
  LayerBudget,
  Pattern,
  Preset,
  Propagation,
  QualityInputs,
  Sampling,
  Task,
  type AlphaOptions,
  type EvaluateSpec,
  type Job,
  type JobEvent,
  type JobEvent_AttemptStarted,
  type JobEvent_LayerFinished,
  type JobEvent_NodeJoined,
  type JobEvent_NodeLost,
  type JobEvent_Planned,
  type JobEvent_Progress,
  type JobEvent_SnapshotFailed,
  type JobEvent_StateChanged,
  type JobSpec,
  type LayerBudgetOptions,
  type OptimalOptions,
  type OwlOptions,
  type ProjectionReport,
  type ProjectionSelection,
  type ProjectionTarget,
  type PruneSpec,
  type TaskSource,
  type TokenSource,
} from '@secateur/proto/job';
export type { DescribeNodeResponse, EngineDescription } from '@secateur/proto/kernel_service';
export {
  AttentionBiases,
  Compute,
  FeedForward,
  HiddenStates,
  ModelFamily,
  Normalization,
  PositionEncoding,
  RotaryScalingKind,
  type Architecture,
  type RotaryScaling,
} from '@secateur/proto/model';
export type { JobPlan, MemoryItem, MemoryPlan, NodePlan, ProjectionPlan, ShardPlan } from '@secateur/proto/plan';
export type {
  Accuracy,
  EvaluateReport,
  GetReportResponse,
  Node,
  NodeReport,
  PerplexityChange,
  PruneReport,
  TaskReport,
} from '@secateur/proto/pruning_service';
export { fromStatusProto, TlsCredentials, type DeepPartial, type TlsFiles, type TlsLogger } from '@secateur/rpc';
export {
  PruningClient,
  type DeleteJobOptions,
  type ListJobsOptions,
  type NewJob,
  type PruningClientOptions,
  type RequestOptions,
  type SameJobOptions,
  type WatchJobOptions,
} from './pruning-client.js';
