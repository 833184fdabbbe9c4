import { dirname, resolve } from 'node:path';
import { evaluateReportToJson, resolveJobSpec, SecateurError } from '@secateur/core';
import { JobSpec } from '@secateur/proto/job';
import { withService, type ServiceOptions } from '../cluster/with-service.js';
import { formatEvaluateReport } from '../output/summary.js';
import { writeResult } from '../output/write-result.js';
import { runJob } from './run-job.js';

export interface EvaluateOptions extends ServiceOptions {
  readonly model: string;
  readonly data: string;
  readonly samples: number;
  readonly seqLen: number;
  readonly json: boolean;
  readonly quiet: boolean;
}

export async function evaluate(options: EvaluateOptions): Promise<void> {
  const spec = resolveJobSpec(
    JobSpec.fromPartial({
      kind: {
        $case: 'evaluate',
        value: {
          model: resolve(options.model),
          data: { path: resolve(options.data), samples: options.samples, sequenceLength: options.seqLen },
        },
      },
    }),
  );
  const roots = [resolve(options.model), dirname(resolve(options.data))];
  const report = await withService(options, roots, async (client) => {
    const id = await runJob(client, { jobId: '', spec, quiet: options.quiet, resumeHint: 'Run the same command again to measure anew.' });
    const answer = (await client.getReport(id)).report;
    if (answer?.$case !== 'evaluate') throw new SecateurError('INTERNAL', `Job ${id} has no report of an evaluation.`);
    return answer.value;
  });
  writeResult(options.json, evaluateReportToJson(report), () => formatEvaluateReport(report));
}
