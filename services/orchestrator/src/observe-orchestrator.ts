import { JobState, jobStateToJSON } from '@secateur/proto/job';
import { observe } from '@secateur/telemetry';
import type { NodePool } from './scheduler/node-pool.js';
import type { JobStore } from './store/job-store.js';

/** Lets metrics be read of what jobs and nodes there are. */
export function observeOrchestrator(store: Pick<JobStore, 'counts' | 'pendingLayers'>, pool: Pick<NodePool, 'nodes'>): void {
  observe('JOBS', async () => {
    const counts = await store.counts();
    // Every state has a value, so that one which jobs have left goes to 0.
    const states = Object.values(JobState).filter((state) => state !== JobState.UNSPECIFIED && state !== JobState.UNRECOGNIZED);
    return states.map((state) => ({ value: counts.get(state) ?? 0, attributes: { 'secateur.job.state': nameOf(state) } }));
  });
  observe('PENDING_LAYERS', async () => [{ value: await store.pendingLayers() }]);
  observe('NODES', () => {
    const healthy = pool.nodes.filter((node) => node.healthy).length;
    return [
      { value: healthy, attributes: { 'secateur.node.healthy': true } },
      { value: pool.nodes.length - healthy, attributes: { 'secateur.node.healthy': false } },
    ];
  });
}

function nameOf(state: JobState): string {
  return jobStateToJSON(state).replace(/^JOB_STATE_/, '');
}
