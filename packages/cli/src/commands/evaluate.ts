import { resolveLocation } from '@secateur/checkpoint';
import { evaluateReportToJson, SecateurError } from '@secateur/core';
import { JobSpec, type Task } from '@secateur/proto/job';
import type { Compute, HiddenStates } from '@secateur/proto/model';
import { localRoots } from '../cluster/local-roots.js';
import { withService, type ServiceOptions } from '../cluster/with-service.js';
import { checkRequest, type PathCheck } from '../input/check-request.js';
import { formatEvaluateReport } from '../output/summary.js';
import { writeResult } from '../output/write-result.js';
import { runJob } from './run-job.js';

const DEFAULT_TASKS = ['perplexity'] as const;

export interface EvaluateOptions extends ServiceOptions {
  readonly model: string;
  /** A file for each task; for the perplexity also a glob. */
  readonly data: readonly string[];
  readonly task?: readonly ('perplexity' | Task)[];
  readonly textField: string;
  readonly samples: number;
  readonly seqLen: number;
  readonly stride: number;
  /** Questions of each task; all when 0. */
  readonly limit: number;
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export async function evaluate(options: EvaluateOptions): Promise<void> {
  const { endpoint, model, data, task = DEFAULT_TASKS, quiet = false } = options;
  const local: PathCheck[] = [
    { flag: '--model', path: model, expected: 'exists' },
    ...data.map((path, place): PathCheck => ({ flag: '--data', path, expected: task[place] === 'perplexity' ? 'is data' : 'exists' })),
  ];
  const spec = await checkRequest(toEvaluateSpec(options), endpoint === undefined ? local : []);
  const roots = await localRoots(model, data);
  const report = await withService(options, roots, async (client, signal) => {
    const { job } = await runJob(client, {
      jobId: '',
      spec,
      quiet,
      resumeHint: () => Promise.resolve('Run the same command again to measure anew.'),
      signal,
    });
    const answer = (await client.getReport(job.id, { jobCreatedAt: job.createdAt })).report;
    if (answer?.$case !== 'evaluate') throw new SecateurError('INTERNAL', `Job ${job.id} has no report of an evaluation.`);
    return answer.value;
  });
  writeResult(options.json, evaluateReportToJson(report), () => formatEvaluateReport(report));
}

/** The job a user asks for: each file belongs to the task at the same place. */
function toEvaluateSpec(options: EvaluateOptions): JobSpec {
  const { model, data, textField, task = DEFAULT_TASKS, samples, seqLen, stride, limit, compute, hiddenStates } = options;
  const violations = [
    ...(task.length === data.length
      ? []
      : [{ field: '--data', description: `${data.length} for ${task.length} tasks; each task needs its own, in the same order` }]),
    ...idleOptions(task, options),
  ];
  if (violations.length > 0) throw new SecateurError('INVALID_REQUEST', 'Wrong options:', { violations });
  const files = task.map((name, place) => ({ name, path: resolveLocation(data[place]!) }));
  const windows = files.find(({ name }) => name === 'perplexity');
  return JobSpec.fromPartial({
    kind: {
      $case: 'evaluate',
      value: {
        model: resolveLocation(model),
        data: windows && { path: windows.path, textField, samples, sequenceLength: seqLen },
        stride,
        tasks: files.flatMap(({ name, path }) => (name === 'perplexity' ? [] : [{ task: name, path, limit }])),
        compute,
        hiddenStates,
      },
    },
  });
}

/** Options that were given and none of the tasks looks at. */
function idleOptions(
  task: NonNullable<EvaluateOptions['task']>,
  { samples, seqLen, stride, limit }: EvaluateOptions,
): { readonly field: string; readonly description: string }[] {
  const hasWindows = task.includes('perplexity');
  const hasQuestions = task.some((name) => name !== 'perplexity');
  const ofWindows = Object.entries({ '--samples': samples, '--seq-len': seqLen, '--stride': stride });
  return [
    ...ofWindows.map(([field, value]) => ({ field, isIdle: value > 0 && !hasWindows, needed: '--task perplexity' })),
    { field: '--limit', isIdle: limit > 0 && !hasQuestions, needed: 'a --task that has questions' },
  ].flatMap(({ field, isIdle, needed }) => (isIdle ? [{ field, description: `does nothing without ${needed}` }] : []));
}
