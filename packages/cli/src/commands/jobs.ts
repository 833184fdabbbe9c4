import { evaluateReportToJson, pruneReportToJson } from '@secateur/core';
import { Job, type JobState } from '@secateur/proto/job';
import { Node } from '@secateur/proto/pruning_service';
import { fromStatusProto } from '@secateur/rpc';
import Table from 'cli-table3';
import { withClient } from '../cluster/with-service.js';
import type { ConnectionFlags } from '../input/security-options.js';
import { createLines } from '../output/progress.js';
import { formatEvaluateReport, formatPruneReport } from '../output/summary.js';
import { jobStateWord } from '../output/words.js';
import { writeResult } from '../output/write-result.js';
import { writeTrace } from './run-job.js';

export interface EndpointOptions extends ConnectionFlags {
  readonly json?: boolean;
}

const TABLE_STYLE = { style: { head: [], border: [], compact: true } };

export interface ListJobsFlags extends EndpointOptions {
  readonly state?: readonly JobState[];
  readonly limit?: number;
}

export async function listJobs({ json, state: states, limit, ...connection }: ListJobsFlags): Promise<void> {
  const jobs = await withClient(connection, async (client) => {
    const all: Job[] = [];
    for await (const job of client.listJobs({ ...(states && { states }), ...(limit && { limit }) })) all.push(job);
    return all;
  });
  writeResult(json, { jobs: jobs.map((job) => Job.toJSON(job)) }, () => formatJobs(jobs));
}

export async function getJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const job = await withClient(connection, (client) => client.getJob(jobId));
  writeResult(json, Job.toJSON(job) as object, () => formatJob(job));
}

/** Events as lines until the job ends; with --json they go to stderr and the ended job to stdout. Throws the error of a job that failed. */
export async function watchJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const stream = json === true ? process.stderr : process.stdout;
  const job = await withClient(connection, async (client) => {
    const lines = createLines((line) => stream.write(`${line}\n`));
    const { createdAt: jobCreatedAt } = await client.getJob(jobId);
    for await (const event of client.watchJob(jobId, { jobCreatedAt })) {
      lines.onEvent(event);
      if (event.event?.$case === 'stateChanged') stream.write(`${jobStateWord(event.event.value.state)}\n`);
    }
    return client.getJob(jobId, { jobCreatedAt });
  });
  if (json === true) writeResult(json, Job.toJSON(job) as object, () => '');
  if (job.error !== undefined) throw fromStatusProto(job.error);
}

export async function cancelJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const job = await withClient(connection, (client) => client.cancelJob(jobId));
  writeResult(json, Job.toJSON(job) as object, () => formatJob(job));
}

export async function pauseJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const job = await withClient(connection, (client) => client.pauseJob(jobId));
  writeResult(json, Job.toJSON(job) as object, () => formatJob(job));
}

export async function resumeJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const job = await withClient(connection, (client) => client.resumeJob(jobId));
  writeResult(json, Job.toJSON(job) as object, () => formatJob(job));
}

export async function deleteJob(
  jobId: string,
  { json, deleteOutput = false, ...connection }: EndpointOptions & { readonly deleteOutput?: boolean },
): Promise<void> {
  await withClient(connection, (client) => client.deleteJob(jobId, { deleteOutput }));
  writeResult(json, { deleted: jobId }, () => `Job ${jobId} is forgotten.\n`);
}

export async function reportJob(jobId: string, { json, ...connection }: EndpointOptions): Promise<void> {
  const { report } = await withClient(connection, (client) => client.getReport(jobId));
  if (report?.$case === 'prune') writeResult(json, pruneReportToJson(report.value), () => formatPruneReport(report.value));
  if (report?.$case === 'evaluate') writeResult(json, evaluateReportToJson(report.value), () => formatEvaluateReport(report.value));
}

export async function traceJob(jobId: string, { out, ...connection }: ConnectionFlags & { readonly out: string }): Promise<void> {
  await withClient(connection, (client) => writeTrace(client, jobId, out));
  process.stderr.write(`Written to ${out}; open it in https://ui.perfetto.dev or chrome://tracing.\n`);
}

export async function listNodes({ json, ...connection }: EndpointOptions): Promise<void> {
  const nodes = await withClient(connection, (client) => client.listNodes());
  writeResult(json, { nodes: nodes.map((node) => Node.toJSON(node)) }, () => {
    const table = new Table({ head: ['address', 'name', 'state', 'engine', 'threads', 'sessions', 'memory'], ...TABLE_STYLE });
    for (const { address, healthy, description } of nodes) {
      const engine = description?.engine;
      const gibibytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
      table.push([
        address,
        description?.name ?? '',
        healthy ? 'healthy' : 'unhealthy',
        engine === undefined ? '' : `${engine.backend} ${engine.instructionSet}`,
        engine === undefined ? '' : `${engine.threads}${engine.cpus === '' ? '' : ` on ${engine.cpus}`}`,
        description?.sessions ?? '',
        description === undefined ? '' : `${gibibytes(description.memoryUsedBytes)} of ${gibibytes(description.memoryBudgetBytes)} GiB`,
      ]);
    }
    const reasons = nodes.filter(({ healthy }) => !healthy).map(({ address, reason }) => `${address}: ${reason}\n`);
    return `${table.toString()}\n${reasons.join('')}`;
  });
}

/** A job, and below it what it failed with. */
function formatJob(job: Job): string {
  const error = job.error?.message ?? '';
  return `${formatJobs([{ ...job, error: undefined }])}${error === '' ? '' : `${error}\n`}`;
}

/** Of a terminal's line about half is left for the error of a job; elsewhere lines are as long as they are. */
function shortened(text: string): string {
  const most = process.stdout.isTTY ? Math.max(20, Math.floor(process.stdout.columns / 2)) : Infinity;
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

function formatJobs(jobs: readonly Job[]): string {
  const table = new Table({ head: ['job', 'tenant', 'kind', 'state', 'attempt', 'layers', 'error'], ...TABLE_STYLE });
  for (const { id, tenant, spec, state, attempt, finishedLayers, layers, error } of jobs) {
    table.push([
      id,
      tenant,
      spec?.kind?.$case ?? '',
      jobStateWord(state),
      attempt,
      layers === 0 ? '' : `${finishedLayers} of ${layers}`,
      shortened(error?.message ?? ''),
    ]);
  }
  return `${table.toString()}\n`;
}
