import type { ServiceImplementation } from '@secateur/rpc';
import type { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import type { JobManager } from '../jobs/job-manager.js';
import type { NodePool } from '../scheduler/node-pool.js';
import { toTimestamp } from '../store/job-record.js';
import { pageTokenAfter, readPageToken } from './page-token.js';

const DEFAULT_PAGE_SIZE = 100;
const MAXIMUM_PAGE_SIZE = 1000;

/** The gRPC surface of the orchestrator: unpacks requests, asks the job manager, packs answers. */
export function createPruningService(jobs: JobManager, pool: NodePool): ServiceImplementation<PruningServiceDefinition> {
  return {
    planJob: async ({ spec }, { caller, signal }) => ({ plan: await jobs.plan(caller, spec, signal) }),

    createJob: async ({ jobId, spec }, { caller }) => ({ job: await jobs.create(caller, jobId, spec) }),

    getJob: async ({ jobId, jobCreatedAt }, { caller }) => ({ job: await jobs.get(caller, jobId, jobCreatedAt) }),

    listJobs: async ({ pageSize, pageToken, states }, { caller }) => {
      const size = Math.min(pageSize === 0 ? DEFAULT_PAGE_SIZE : pageSize, MAXIMUM_PAGE_SIZE);
      const before = pageToken === '' ? undefined : readPageToken(pageToken);
      // One more tells whether there is another page.
      const found = await jobs.list(caller, { states, before, limit: size + 1 });
      const page = found.slice(0, size);
      const last = page.at(-1);
      return { jobs: page, nextPageToken: last !== undefined && found.length > size ? pageTokenAfter(last) : '' };
    },

    watchJob: async function* ({ jobId, jobCreatedAt, afterSequence }, { caller, signal }) {
      const { job, events } = await jobs.watch(caller, jobId, { jobCreatedAt, afterSequence }, signal);
      for await (const event of events) {
        const news = event === undefined ? { heartbeat: toTimestamp(new Date()) } : { event };
        yield { ...news, jobCreatedAt: job.createdAt };
      }
    },

    cancelJob: async ({ jobId }, { caller }) => ({ job: await jobs.cancel(caller, jobId) }),

    pauseJob: async ({ jobId }, { caller }) => ({ job: await jobs.pause(caller, jobId) }),

    resumeJob: async ({ jobId }, { caller }) => ({ job: await jobs.resume(caller, jobId) }),

    deleteJob: async ({ jobId, deleteOutput }, { caller }) => {
      await jobs.delete(caller, jobId, deleteOutput);
      return {};
    },

    getReport: async ({ jobId, jobCreatedAt }, { caller }) => ({ report: await jobs.report(caller, jobId, jobCreatedAt) }),

    getTrace: async function* ({ jobId }, { caller }) {
      for await (const otlpJson of jobs.trace(caller, jobId)) yield { otlpJson };
    },

    listNodes: async () => {
      // How busy a node is changes all the time; one that does not answer is described as it was.
      await Promise.allSettled(pool.healthy.map((node) => node.describe()));
      return { nodes: pool.nodes.map((node) => node.toMessage()) };
    },
  };
}
