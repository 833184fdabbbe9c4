import { SecateurError } from '@secateur/core';
import type { SpanRecorder } from '@secateur/telemetry';
import type { Logger } from 'pino';
import type { NodePool } from '../scheduler/node-pool.js';
import type { JobStore } from '../store/job-store.js';
import type { JobLease } from './job-lease.js';

const DRAIN_TIMEOUT_MS = 30_000;
/** What one attempt's recorded spans may take in the store; later ones are left out. */
const MAXIMUM_BYTES = 512 << 20;

/** The recorded spans of a job that this process runs: its own and those of the nodes, stored layer by layer so that a lost process loses little. */
export class JobTrace {
  private readonly traceIds = new Set<string>();
  private bytes = 0;
  private toldOfProblem = false;

  constructor(
    private readonly lease: Pick<JobLease, 'jobId' | 'token'>,
    /** False when nobody asked for the spans; they are then only exported, not kept. */
    private readonly wanted: boolean,
    private readonly recorder: SpanRecorder,
    private readonly store: Pick<JobStore, 'addTrace'>,
    private readonly logger: Logger,
  ) {}

  add(traceId: string): void {
    if (this.wanted) this.traceIds.add(traceId);
  }

  /** Takes over what has been recorded since the last time. A node that does not answer is passed over. */
  async drain(pool: NodePool): Promise<void> {
    const traceIds = [...this.traceIds];
    if (traceIds.length === 0) return;
    for await (const chunk of this.recorder.drain(traceIds)) await this.keep(chunk);
    await Promise.all(
      pool.healthy.map(async (node) => {
        try {
          for await (const { otlpJson } of node.trace.drainSpans({ traceIds }, { timeoutMs: DRAIN_TIMEOUT_MS })) await this.keep(otlpJson);
        } catch (error) {
          // The spans of a node that is gone are gone with it.
          this.logger.debug({ jobId: this.lease.jobId, node: node.name, err: error }, 'the spans of a node could not be fetched');
        }
      }),
    );
  }

  /** A job does not fail for its trace. */
  private async keep(chunk: Uint8Array): Promise<void> {
    const { jobId, token } = this.lease;
    if (this.bytes + chunk.byteLength > MAXIMUM_BYTES) {
      this.tellOfProblem({ jobId, maximumBytes: MAXIMUM_BYTES });
      return;
    }
    this.bytes += chunk.byteLength;
    try {
      await this.store.addTrace(jobId, token, chunk);
    } catch (error) {
      if (error instanceof SecateurError && error.reason === 'LEASE_LOST') {
        this.logger.debug({ jobId }, 'spans of an attempt that lost the job are not kept');
      } else {
        this.tellOfProblem({ jobId, err: error });
      }
    }
  }

  /** Once: there may be thousands of parts. */
  private tellOfProblem(problem: object): void {
    if (!this.toldOfProblem) this.logger.warn(problem, 'the trace of a job is not whole: some of its spans could not be kept');
    this.toldOfProblem = true;
  }
}
