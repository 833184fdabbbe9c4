import { createHash } from 'node:crypto';
import {
  batchSequences,
  findTask,
  resolveSequenceLength,
  SecateurError,
  sequencesOfWindows,
  type MeasuredGroup,
  type MultipleChoiceItem,
  type ScoredSequence,
  type TaskDefinition,
} from '@secateur/core';
import { loadEvaluationTokens, loadTask } from '@secateur/checkpoint';
import type { TaskSource, TokenSource } from '@secateur/proto/job';
import type { Architecture } from '@secateur/proto/model';
import { readTokenSource } from './token-source.js';

/** What is to be measured. */
export interface MeasurementSource {
  /** What the perplexity is measured with; not measured when undefined. */
  readonly data: TokenSource | undefined;
  /** Tokens from the start of one window to the start of the next; the window's length when 0. */
  readonly stride: number;
  readonly tasks: readonly TaskSource[];
}

interface MeasuredTask {
  readonly definition: TaskDefinition;
  readonly items: readonly MultipleChoiceItem[];
}

/** Everything that is measured in one pass through the model: the windows of a text, the answers of tasks, or both. */
export interface Measurement {
  /** The windows first, then every answer of every task. */
  readonly sequences: readonly ScoredSequence[];
  readonly batches: readonly MeasuredGroup[];
  /** How many of the sequences are windows. */
  readonly windows: number;
  /** Tokens of each window; 0 when there is none. */
  readonly windowLength: number;
  readonly stride: number;
  readonly tasks: readonly MeasuredTask[];
  /** Of all tokens, and which of them are scored. */
  readonly digest: string;
}

interface MeasuredModel {
  /** Of the model, for its tokenizer. */
  readonly directory: string;
  readonly architecture: Architecture;
  readonly allowedRoots: readonly string[];
}

/** Reads and checks what is to be measured, and makes tokens of it. */
export async function loadMeasurement(
  { data, stride: requestedStride, tasks }: MeasurementSource,
  { directory, architecture, allowedRoots }: MeasuredModel,
  signal: AbortSignal,
): Promise<Measurement> {
  const { vocabularySize, maximumPositions } = architecture;
  const sequences: ScoredSequence[] = [];
  let windowLength = 0;
  if (data !== undefined) {
    const tokens = await loadEvaluationTokens(
      readTokenSource(data),
      { directory, vocabularySize, defaultSequenceLength: resolveSequenceLength(data.sequenceLength, architecture), allowedRoots },
      { signal, stride: requestedStride },
    );
    // Ids bring their own length, which must fit the model too.
    windowLength = resolveSequenceLength(tokens.sequenceLength, architecture);
    for (const sequence of sequencesOfWindows(tokens.ids, windowLength, requestedStride || windowLength)) sequences.push(sequence);
  }
  const windows = sequences.length;
  const measuredTasks: MeasuredTask[] = [];
  for (const { task, path, limit } of tasks) {
    const definition = findTask(task);
    const consumer = { directory, vocabularySize, allowedRoots, maximumTokens: maximumPositions };
    const loaded = await loadTask(definition, { path, limit }, consumer, { signal });
    measuredTasks.push({ definition, items: loaded.items });
    for (const sequence of loaded.sequences) sequences.push(sequence);
  }
  if (sequences.length === 0) throw new SecateurError('INVALID_REQUEST', 'The job names no data and no task to measure.');
  return {
    sequences,
    batches: batchSequences(sequences),
    windows,
    windowLength,
    stride: requestedStride || windowLength,
    tasks: measuredTasks,
    digest: digestOf(sequences),
  };
}

function digestOf(sequences: readonly ScoredSequence[]): string {
  const hash = createHash('sha256');
  for (const { ids, first } of sequences) {
    hash.update(`${ids.length},${first};`);
    hash.update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  }
  return hash.digest('hex').slice(0, 16);
}
