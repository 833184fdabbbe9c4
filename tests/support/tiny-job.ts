import { join } from 'node:path';
import type { AllocationOptions } from '@secateur/proto/allocation';
import { TokenSource, type JobSpec, type PruneSpec } from '@secateur/proto/job';
import { pruneSpec } from './jobs.js';
import { writeTinyCheckpoint, writeTinyTokens } from './tiny-checkpoint.js';

const VOCABULARY = 61;
const CONFIG = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 48,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: VOCABULARY,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
} as const;

/** A model of a few blocks that is pruned in a fraction of a second, `model` in a folder, with its tokens. */
export async function writeTinyJob(
  folder: string,
  changes: Partial<PruneSpec> & Partial<Pick<AllocationOptions, 'allocation'>> = {},
  blocks = 3,
): Promise<(output: string) => JobSpec> {
  const model = join(folder, 'model');
  const tokens = join(folder, 'tokens.safetensors');
  await writeTinyCheckpoint(model, { ...CONFIG, num_hidden_layers: blocks });
  await writeTinyTokens(tokens, 24, 16, VOCABULARY);
  const calibration = TokenSource.fromPartial({ path: tokens, samples: 24, sequenceLength: 16 });
  return (output) => pruneSpec('books-llama', output, { model, calibration, ...changes });
}
