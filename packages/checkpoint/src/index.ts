export { resolveInsideRoots } from './files/allowed-roots.js';
export type { InputOptions } from './files/input-file.js';
export { errorCode, toFileError, withFileErrors } from './files/file-errors.js';
export { isStoreUrl, joinLocation, parseStoreUrl, resolveLocation } from './files/locations.js';
export { makeDirectory } from './files/make-directory.js';
export { openInput } from './files/open-input.js';
export { publishDirectory } from './files/publish-directory.js';
export {
  Checkpoint,
  hasWeights,
  openCheckpoint,
  readModelConfig,
  type CheckpointFile,
  type ReadOptions,
  type TensorEntry,
} from './checkpoint/checkpoint.js';
export { CheckpointWriter, type CopyOptions } from './checkpoint/checkpoint-writer.js';
export { inspectCheckpoint, type BlockSummary, type CheckpointSummary, type ProjectionSummary } from './checkpoint/inspect-checkpoint.js';
export { defaultStaging, stagingFolder } from './store/staging.js';
export { StoreOutput } from './store/store-output.js';
export { scanTensors, type ScannedTensor, type ScanOptions } from './checkpoint/scan-tensors.js';
export { applyMask } from './masks/apply-mask.js';
export { MaskingThreads } from './masks/masking-threads.js';
export type { MaskedWeights } from './masks/mask-weights.js';
export { applyMasks, type AppliedMasks } from './masks/apply-masks.js';
export { compareMasks, type MaskComparison, type MaskOverlap } from './masks/compare-masks.js';
export { exportMasks, type ExportedMasks, type MaskSummary } from './masks/export-masks.js';
export { countDropped, findSetPadding, maskEntries } from './masks/packed-mask.js';
export { readRatios } from './ratios/read-ratios.js';
export type { SafetensorsLayout, TensorLayout } from './safetensors/header.js';
export { readFloatTensors } from './safetensors/read-float-tensors.js';
export { SafetensorsFileWriter, type SafetensorsEntry } from './safetensors/safetensors-file-writer.js';
export { loadTokenizer, Tokenizer, type EncodeOptions } from './tokenizer/tokenizer.js';
export { loadCalibrationTokens, loadEvaluationTokens, type EvaluationLoadOptions, type LoadOptions } from './tokens/load-tokens.js';
export { loadTask, type LoadedTask, type TaskFile } from './tokens/load-task.js';
export { expandDataPath, type DataFiles } from './tokens/data-files.js';
export { dataFormatOf } from './tokens/data-format.js';
export type { TokenConsumer, TokenSet, TokenSource } from './tokens/token-set.js';
