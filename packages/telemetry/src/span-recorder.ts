import type { ReadableSpan, SpanProcessor } from '@opentelemetry/sdk-trace-base';

/** Entry of the W3C tracestate that says, to every process a trace reaches, that its spans are to be recorded. */
export const RECORD_STATE = { key: 'secateur', value: 'record' } as const;

const MAXIMUM_CHUNK_BYTES = 1 << 20;
const SPANS_PER_CHUNK = 512;
const DEFAULT_MAXIMUM_SPANS = 200_000;

/** Keeps the finished spans of traces that are to be recorded until somebody takes them. */
export class SpanRecorder implements SpanProcessor {
  private readonly traces = new Map<string, ReadableSpan[]>();
  private spans = 0;
  private dropped = 0;

  /** `maximumSpans`: when more are kept, the oldest trace is dropped. */
  constructor(private readonly maximumSpans = DEFAULT_MAXIMUM_SPANS) {}

  /** Spans that were never taken and had to make room. */
  get droppedSpans(): number {
    return this.dropped;
  }

  /** Takes the spans of some traces (32 hex digits each): OTLP/JSON ExportTraceServiceRequests of at most 1 MiB, single huge spans aside. */
  async *drain(traceIds: readonly string[]): AsyncGenerator<Uint8Array, void, undefined> {
    const taken = traceIds.flatMap((traceId) => this.take(traceId));
    if (taken.length === 0) return;
    const { JsonTraceSerializer } = await import('@opentelemetry/otlp-transformer');
    const serialize = function* (spans: ReadableSpan[]): Generator<Uint8Array, void, undefined> {
      const chunk = JsonTraceSerializer.serializeRequest(spans);
      if (chunk === undefined) return;
      if (chunk.byteLength <= MAXIMUM_CHUNK_BYTES || spans.length === 1) {
        yield chunk;
        return;
      }
      const middle = spans.length >> 1;
      yield* serialize(spans.slice(0, middle));
      yield* serialize(spans.slice(middle));
    };
    for (let start = 0; start < taken.length; start += SPANS_PER_CHUNK) yield* serialize(taken.slice(start, start + SPANS_PER_CHUNK));
  }

  onStart(): void {
    // Only finished spans are kept.
  }

  onEnd(span: ReadableSpan): void {
    const { traceId, traceState } = span.spanContext();
    if (traceState?.get(RECORD_STATE.key) !== RECORD_STATE.value) return;
    let spans = this.traces.get(traceId);
    if (spans === undefined) this.traces.set(traceId, (spans = []));
    spans.push(span);
    this.spans += 1;
    while (this.spans > this.maximumSpans) this.dropOldestTrace();
  }

  forceFlush(): Promise<void> {
    return Promise.resolve();
  }

  shutdown(): Promise<void> {
    this.traces.clear();
    this.spans = 0;
    return Promise.resolve();
  }

  private take(traceId: string): ReadableSpan[] {
    const spans = this.traces.get(traceId) ?? [];
    this.traces.delete(traceId);
    this.spans -= spans.length;
    return spans;
  }

  private dropOldestTrace(): void {
    const oldest = this.traces.keys().next();
    if (oldest.done !== true) this.dropped += this.take(oldest.value).length;
  }
}
