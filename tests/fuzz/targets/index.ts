import type { FuzzTarget } from '../engine/target.js';
import { access } from './access.js';
import { config, safetensors, shardIndex } from './checkpoint.js';
import { compressed, jsonLines, parquet, questions, ratios, tokenIds } from './data.js';
import { jobSpec } from './job-spec.js';
import { http, kernelNode, orchestrator } from './services.js';
import { tokenizer, vocabulary } from './tokenizer.js';

/** By name; each may have a folder of that name in tests/fuzz/corpus. */
export const TARGETS: ReadonlyMap<string, FuzzTarget> = new Map([
  ['safetensors', safetensors],
  ['shard-index', shardIndex],
  ['config', config],
  ['tokenizer', tokenizer],
  ['vocabulary', vocabulary],
  ['json-lines', jsonLines],
  ['parquet', parquet],
  ['compressed', compressed],
  ['questions', questions],
  ['token-ids', tokenIds],
  ['ratios', ratios],
  ['job-spec', jobSpec],
  ['access', access],
  ['orchestrator', orchestrator],
  ['kernel-node', kernelNode],
  ['http', http],
]);
