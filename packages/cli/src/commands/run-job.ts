import { lstat, open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { withFileErrors } from '@secateur/checkpoint';
import type { PruningClient, WatchJobOptions } from '@secateur/client';
import { JobState, type Job, type JobSpec } from '@secateur/proto/job';
import { fromStatusProto } from '@secateur/rpc';
import { Interrupted } from '../output/exit.js';
import { createProgress } from '../output/progress.js';

const CANCEL_TIMEOUT_MS = 10_000;
/** A job of which nothing is heard for so long is told of. */
const SILENT_MS = 5_000;

export interface RunJobOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly quiet: boolean;
  /** Where to write the trace for ui.perfetto.dev. */
  readonly traceOut?: string;
  /** Told to a user who stops the command; nothing where there is nothing to go on with. */
  readonly resumeHint: () => Promise<string>;
  /** Aborting cancels the job. */
  readonly signal: AbortSignal;
}

/** A job that is done, and what kept its trace from being written: the result is there all the same. */
export interface DoneJob {
  readonly job: Job;
  readonly traceError: Error | undefined;
}

/** Runs a job to its end with progress. Throws the error of a job that fails, Interrupted when it is stopped. */
export async function runJob(client: PruningClient, { jobId, spec, quiet, traceOut, resumeHint, signal }: RunJobOptions): Promise<DoneJob> {
  const { id, state, createdAt: jobCreatedAt } = await client.createJob({ jobId, spec });
  if (state === JobState.SUCCEEDED) {
    process.stderr.write(`Job ${id} has done this already; its report follows. Another --job-id does it anew.\n`);
  }
  await watch(client, id, { jobCreatedAt, signal }, quiet);
  if (signal.aborted) {
    // A service that cannot be reached any more stops the job by itself or keeps it; the user waits for neither.
    await Promise.race([client.cancelJob(id).catch(() => undefined), sleep(CANCEL_TIMEOUT_MS, undefined, { ref: false })]);
    throw new Interrupted(['Stopped.', await resumeHint()].join(' ').trimEnd());
  }
  const traceError =
    traceOut === undefined
      ? undefined
      : await writeTrace(client, id, traceOut).then(
          () => undefined,
          (cause: unknown) => new Error('The job is done, but its trace could not be written.', { cause }),
        );
  const job = await client.getJob(id, { jobCreatedAt });
  if (job.error !== undefined) throw fromStatusProto(job.error);
  if (job.state === JobState.CANCELLED) {
    throw new Interrupted([`Job ${id} was cancelled by someone else.`, await resumeHint()].join(' ').trimEnd());
  }
  return { job, traceError };
}

/** Writes the recorded spans of a job as a file for ui.perfetto.dev and chrome://tracing. */
export async function writeTrace(client: PruningClient, jobId: string, path: string): Promise<void> {
  const { toPerfetto } = await import('@secateur/telemetry');
  // Open before anything can fail: what is opened later would be there again after it was removed.
  const file = await withFileErrors('create', path, () => open(path, 'w'));
  try {
    await withFileErrors('write', path, () => pipeline(toPerfetto(client.getTrace(jobId)), file.createWriteStream()));
  } catch (error) {
    // Half a trace is of no use; a device, such as /dev/stdout, is not ours to remove.
    const isFile = await lstat(path).then(
      (found) => found.isFile(),
      () => false,
    );
    if (isFile) await rm(path, { force: true });
    throw error;
  }
}

/** The job that was begun here, not another one that has got its id since. */
type WatchedJob = Required<Pick<WatchJobOptions, 'jobCreatedAt' | 'signal'>>;

/** Shows progress until the job ends or the signal aborts. */
async function watch(client: PruningClient, jobId: string, options: WatchedJob, quiet: boolean): Promise<void> {
  const progress = createProgress(quiet);
  const waiting = setTimeout(() => {
    if (!quiet) process.stderr.write(`Job ${jobId} waits for its turn.\n`);
  }, SILENT_MS);
  try {
    for await (const event of client.watchJob(jobId, options)) {
      clearTimeout(waiting);
      progress.onEvent(event);
    }
  } catch (error) {
    if (!options.signal.aborted) throw error;
  } finally {
    clearTimeout(waiting);
    progress.stop();
  }
}
