import { createWriteStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { pipeline } from 'node:stream/promises';
import type { PruningClient } from '@secateur/client';
import { fromStatusProto } from '@secateur/rpc';
import { JobState, type JobSpec } from '@secateur/proto/job';
import { createProgress } from '../output/progress.js';
import { Interrupted } from '../output/exit.js';

const CANCEL_TIMEOUT_MS = 10_000;

export interface RunJobOptions {
  readonly jobId: string;
  readonly spec: JobSpec;
  readonly quiet: boolean;
  /** Where to write the trace for ui.perfetto.dev. */
  readonly traceOut?: string;
  /** Told to a user who stops the command. */
  readonly resumeHint: string;
}

/** Runs a job to its end with progress. Ctrl-C cancels it and throws Interrupted; a job that fails throws its error. */
export async function runJob(client: PruningClient, { jobId, spec, quiet, traceOut, resumeHint }: RunJobOptions): Promise<string> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of signals) process.on(name, onSignal);
  const progress = createProgress(quiet);
  try {
    const { id } = await client.createJob({ jobId, spec });
    try {
      for await (const event of client.watchJob(id, { signal: stop.signal })) progress.onEvent(event);
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    }
    progress.stop();
    if (stop.signal.aborted) {
      process.stderr.write('Stopping; press Ctrl-C again to end at once.\n');
      await Promise.race([client.cancelJob(id), sleep(CANCEL_TIMEOUT_MS, undefined, { ref: false })]);
      throw new Interrupted(`Stopped. ${resumeHint}`);
    }
    const job = await client.getJob(id);
    if (traceOut !== undefined) await writeTrace(client, id, traceOut);
    if (job.error !== undefined) throw fromStatusProto(job.error);
    if (job.state === JobState.CANCELLED) throw new Interrupted(`Job ${id} was cancelled by someone else. ${resumeHint}`);
    return id;
  } finally {
    progress.stop();
    for (const name of signals) process.off(name, onSignal);
  }
}

/** Writes the recorded spans of a job as a file for ui.perfetto.dev and chrome://tracing. */
export async function writeTrace(client: PruningClient, jobId: string, path: string): Promise<void> {
  const { toPerfetto } = await import('@secateur/telemetry');
  await pipeline(toPerfetto(client.getTrace(jobId)), createWriteStream(path));
}
