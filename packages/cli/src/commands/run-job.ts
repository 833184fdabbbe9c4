import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PruningClient, WatchJobOptions } from '@secateur/client';
import { JobState, type Job, type JobSpec } from '@secateur/proto/job';
import { fromStatusProto } from '@secateur/rpc';
import { Interrupted } from '../output/exit.js';
import { createProgress } from '../output/progress.js';

const CANCEL_TIMEOUT_MS = 10_000;

export interface RunJobOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly quiet: boolean;
  /** Where to write the trace for ui.perfetto.dev. */
  readonly traceOut?: string;
  /** Told to a user who stops the command. */
  readonly resumeHint: string;
  /** Aborting cancels the job. */
  readonly signal: AbortSignal;
}

/** Runs a job to its end with progress and returns it. Throws the error of a job that fails, Interrupted when it is stopped. */
export async function runJob(client: PruningClient, { jobId, spec, quiet, traceOut, resumeHint, signal }: RunJobOptions): Promise<Job> {
  const { id, state, createdAt: jobCreatedAt } = await client.createJob({ jobId, spec });
  if (state === JobState.SUCCEEDED) {
    process.stderr.write(`Job ${id} has done this already; its report follows. Another --job-id does it anew.\n`);
  }
  await watch(client, id, { jobCreatedAt, signal }, quiet);
  if (signal.aborted) {
    // A service that cannot be reached any more stops the job by itself or keeps it; the user waits for neither.
    await Promise.race([client.cancelJob(id).catch(() => undefined), sleep(CANCEL_TIMEOUT_MS, undefined, { ref: false })]);
    throw new Interrupted(`Stopped. ${resumeHint}`);
  }
  const traceError = traceOut === undefined ? undefined : await writeTrace(client, id, traceOut).catch((error: unknown) => error);
  const job = await client.getJob(id, { jobCreatedAt });
  if (job.error !== undefined) throw fromStatusProto(job.error);
  if (job.state === JobState.CANCELLED) throw new Interrupted(`Job ${id} was cancelled by someone else. ${resumeHint}`);
  if (traceError !== undefined) throw new Error('The job is done, but its trace could not be written.', { cause: traceError });
  return job;
}

/** Writes the recorded spans of a job as a file for ui.perfetto.dev and chrome://tracing. */
export async function writeTrace(client: PruningClient, jobId: string, path: string): Promise<void> {
  const { toPerfetto } = await import('@secateur/telemetry');
  try {
    await pipeline(toPerfetto(client.getTrace(jobId)), createWriteStream(path));
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

/** The job that was begun here, not another one that has got its id since. */
type WatchedJob = Required<Pick<WatchJobOptions, 'jobCreatedAt' | 'signal'>>;

/** Shows progress until the job ends or the signal aborts. */
async function watch(client: PruningClient, jobId: string, options: WatchedJob, quiet: boolean): Promise<void> {
  const progress = createProgress(quiet);
  try {
    for await (const event of client.watchJob(jobId, options)) progress.onEvent(event);
  } catch (error) {
    if (!options.signal.aborted) throw error;
  } finally {
    progress.stop();
  }
}
