import { resolve } from 'node:path';
import { evaluateReportToJson, SecateurError } from '@secateur/core';
import { JobSpec } from '@secateur/proto/job';
import type { Compute } from '@secateur/proto/model';
import { localRoots } from '../cluster/local-roots.js';
import { withService, type ServiceOptions } from '../cluster/with-service.js';
import { checkRequest, type PathCheck } from '../input/check-request.js';
import { formatEvaluateReport } from '../output/summary.js';
import { writeResult } from '../output/write-result.js';
import { runJob } from './run-job.js';

export interface EvaluateOptions extends ServiceOptions {
  readonly model: string;
  readonly data: string;
  readonly samples: number;
  readonly seqLen: number;
  readonly compute: Compute;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export async function evaluate(options: EvaluateOptions): Promise<void> {
  const { endpoint, model, data, samples, seqLen, compute, quiet = false } = options;
  const request = JobSpec.fromPartial({
    kind: {
      $case: 'evaluate',
      value: { model: resolve(model), data: { path: resolve(data), samples, sequenceLength: seqLen }, compute },
    },
  });
  const local: PathCheck[] = [
    { flag: '--model', path: model, expected: 'exists' },
    { flag: '--data', path: data, expected: 'exists' },
  ];
  const spec = await checkRequest(request, endpoint === undefined ? local : []);
  const roots = await localRoots(model, data);
  const report = await withService(options, roots, async (client, signal) => {
    const id = await runJob(client, { jobId: '', spec, quiet, resumeHint: 'Run the same command again to measure anew.', signal });
    const answer = (await client.getReport(id)).report;
    if (answer?.$case !== 'evaluate') throw new SecateurError('INTERNAL', `Job ${id} has no report of an evaluation.`);
    return answer.value;
  });
  writeResult(options.json, evaluateReportToJson(report), () => formatEvaluateReport(report));
}
