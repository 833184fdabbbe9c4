import { SecateurError } from '@secateur/core';
import type { ServiceImplementation } from '@secateur/rpc';
import type { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import type { JobManager } from '../jobs/job-manager.js';
import type { NodePool } from '../scheduler/node-pool.js';

const DEFAULT_PAGE_SIZE = 100;
const MAXIMUM_PAGE_SIZE = 1000;

/** The gRPC surface of the orchestrator: unpacks requests, asks the job manager, packs answers. */
export function createPruningService(jobs: JobManager, pool: NodePool): ServiceImplementation<PruningServiceDefinition> {
  return {
    planJob: async ({ spec }, { signal }) => ({ plan: await jobs.plan(spec, signal) }),

    createJob: async ({ jobId, spec }) => ({ job: await jobs.create(jobId, spec) }),

    getJob: ({ jobId }) => answer(() => ({ job: jobs.get(jobId) })),

    listJobs: ({ pageSize, pageToken }) =>
      answer(() => {
        const all = jobs.list();
        const start = pageToken === '' ? 0 : all.findIndex((job) => job.id === pageToken) + 1;
        if (start === 0 && pageToken !== '') throw new SecateurError('INVALID_REQUEST', `page_token ${pageToken} is not of this list.`);
        const end = start + Math.min(pageSize === 0 ? DEFAULT_PAGE_SIZE : pageSize, MAXIMUM_PAGE_SIZE);
        const page = all.slice(start, end);
        return { jobs: page, nextPageToken: end < all.length ? (page.at(-1)?.id ?? '') : '' };
      }),

    watchJob: async function* ({ jobId, afterSequence }, { signal }) {
      for await (const event of jobs.log(jobId).watch(afterSequence, signal)) yield { event };
    },

    cancelJob: async ({ jobId }) => ({ job: await jobs.cancel(jobId) }),

    getReport: ({ jobId }) => answer(() => ({ report: jobs.report(jobId) })),

    getTrace: async function* ({ jobId }) {
      for await (const otlpJson of jobs.trace(jobId).read(pool)) yield { otlpJson };
    },

    listNodes: async () => {
      // How busy a node is changes all the time; one that does not answer is described as it was.
      await Promise.allSettled(pool.healthy.map((node) => node.describe()));
      return { nodes: pool.nodes.map((node) => node.toMessage()) };
    },
  };
}

/** A promise of what a synchronous function returns or throws. */
function answer<Answer>(compute: () => Answer): Promise<Answer> {
  return new Promise((resolve) => {
    resolve(compute());
  });
}
