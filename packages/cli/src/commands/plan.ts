import { jobPlanToJson } from '@secateur/core';
import { localRoots } from '../cluster/local-roots.js';
import { withService } from '../cluster/with-service.js';
import { checkRequest } from '../input/check-request.js';
import { formatJobPlan } from '../output/plan.js';
import { writeResult } from '../output/write-result.js';
import { dataFiles, localPathChecks, toPruneSpec, type PruneSettings } from './prune.js';

export interface PlanOptions extends PruneSettings {
  readonly json?: boolean;
}

/** Shows what a prune job would do, and the memory it would take, without doing it. */
export async function plan(options: PlanOptions): Promise<void> {
  const { model, out } = options;
  const spec = await checkRequest(toPruneSpec(options), localPathChecks(options), { purpose: 'plan' });
  const roots = await localRoots(model, dataFiles(options), out === undefined ? [] : [out]);
  const outline = await withService(options, roots, (client, signal) => client.planJob(spec, { signal }));
  writeResult(options.json, jobPlanToJson(outline), () => formatJobPlan(outline));
}
