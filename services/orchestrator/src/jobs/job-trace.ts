import type { SpanRecorder } from '@secateur/telemetry';
import type { NodePool } from '../scheduler/node-pool.js';

const DRAIN_TIMEOUT_MS = 30_000;
/** What one job's recorded spans may take in memory; later ones are left out. */
const MAXIMUM_BYTES = 512 << 20;

/** The recorded spans of one job: its own and those of the nodes, taken over layer by layer so that a lost node loses little. */
export class JobTrace {
  private readonly traceIds = new Set<string>();
  private readonly chunks: Uint8Array[] = [];
  private bytes = 0;

  constructor(
    /** False when nobody asked for the spans; they are then only exported, not kept. */
    private readonly wanted: boolean,
    private readonly recorder: SpanRecorder,
  ) {}

  add(traceId: string): void {
    if (this.wanted) this.traceIds.add(traceId);
  }

  /** Takes over what has been recorded since the last time. A node that does not answer is passed over. */
  async drain(pool: NodePool): Promise<void> {
    const traceIds = [...this.traceIds];
    if (traceIds.length === 0) return;
    for await (const chunk of this.recorder.drain(traceIds)) this.keep(chunk);
    await Promise.all(
      pool.healthy.map(async (node) => {
        try {
          for await (const { otlpJson } of node.trace.drainSpans({ traceIds }, { timeoutMs: DRAIN_TIMEOUT_MS })) this.keep(otlpJson);
        } catch {
          // The spans of a node that is gone are gone with it.
        }
      }),
    );
  }

  async *read(pool: NodePool): AsyncGenerator<Uint8Array, void> {
    await this.drain(pool);
    yield* this.chunks;
  }

  private keep(chunk: Uint8Array): void {
    if (this.bytes + chunk.byteLength > MAXIMUM_BYTES) return;
    this.bytes += chunk.byteLength;
    this.chunks.push(chunk);
  }
}
