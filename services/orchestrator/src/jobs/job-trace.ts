import type { SpanRecorder } from '@secateur/telemetry';
import type { NodePool } from '../scheduler/node-pool.js';
import type { JobStore } from '../store/job-store.js';

const DRAIN_TIMEOUT_MS = 30_000;
/** What one attempt's recorded spans may take in the store; later ones are left out. */
const MAXIMUM_BYTES = 512 << 20;

/** The recorded spans of a job that this process runs: its own and those of the nodes, stored layer by layer so that a lost process loses little. */
export class JobTrace {
  private readonly traceIds = new Set<string>();
  private bytes = 0;

  constructor(
    private readonly jobId: string,
    /** False when nobody asked for the spans; they are then only exported, not kept. */
    private readonly wanted: boolean,
    private readonly recorder: SpanRecorder,
    private readonly store: JobStore,
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
        } catch {
          // The spans of a node that is gone are gone with it.
        }
      }),
    );
  }

  private async keep(chunk: Uint8Array): Promise<void> {
    if (this.bytes + chunk.byteLength > MAXIMUM_BYTES) return;
    this.bytes += chunk.byteLength;
    // A job does not fail for its trace.
    await this.store.addTrace(this.jobId, chunk).catch(() => undefined);
  }
}
