import { jobPlanToJson } from '@secateur/core';
import { localRoots } from '../cluster/local-roots.js';
import { withService } from '../cluster/with-service.js';
import { checkRequest, type PathCheck } from '../input/check-request.js';
import { formatJobPlan } from '../output/plan.js';
import { writeResult } from '../output/write-result.js';
import { toPruneSpec, type PruneSettings } from './prune.js';

export interface PlanOptions extends PruneSettings {
  readonly json?: boolean;
}

/** Shows what a prune job would do, and the memory it would take, without doing it. */
export async function plan(options: PlanOptions): Promise<void> {
  const { model, calibration, endpoint } = options;
  const paths: PathCheck[] = [
    { flag: '--model', path: model, expected: 'exists' },
    { flag: '--calibration', path: calibration, expected: 'exists' },
  ];
  const spec = await checkRequest(toPruneSpec(options), endpoint === undefined ? paths : [], { purpose: 'plan' });
  const roots = await localRoots(model, calibration);
  const outline = await withService(options, roots, (client, signal) => client.planJob(spec, { signal }));
  writeResult(options.json, jobPlanToJson(outline), () => formatJobPlan(outline));
}
