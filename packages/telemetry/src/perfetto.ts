import { readSpans, type AttributeValue, type RecordedSpan } from './otlp-json.js';
import { assignLanes, type PlacedSpan } from './span-lanes.js';

const PIECE_LENGTH = 1 << 16;
const KINDS = ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'];

interface ShownSpan extends RecordedSpan {
  /** Nanoseconds from the first span. */
  readonly start: number;
  readonly end: number;
}

/** Where a span is drawn: process, lane, and times in nanoseconds from the first span. */
interface Slice extends PlacedSpan<ShownSpan> {
  readonly pid: number;
}

type TraceEvent = Readonly<Record<string, unknown>>;

/**
 * Turns recorded spans (OTLP/JSON ExportTraceServiceRequests) into a Chrome trace, in pieces of text to be written one after the other.
 * ui.perfetto.dev and chrome://tracing open it. Each process is a group of lanes; arrows go from calls to their handlers and along links.
 */
export async function* toPerfetto(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const spans: RecordedSpan[] = [];
  for await (const chunk of chunks) spans.push(...readSpans(chunk));
  let piece = '{"displayTimeUnit":"ms","traceEvents":[';
  let separator = '\n';
  for (const event of traceEvents(spans)) {
    piece += separator + JSON.stringify(event);
    separator = ',\n';
    if (piece.length >= PIECE_LENGTH) {
      yield piece;
      piece = '';
    }
  }
  yield `${piece}\n]}\n`;
}

function* traceEvents(spans: readonly RecordedSpan[]): Generator<TraceEvent, void, undefined> {
  const slices = new Map<string, Slice>();
  for (const [index, [process, members]] of [...groupByProcess(spans)].entries()) {
    const pid = index + 1;
    const placed = assignLanes(members);
    yield* describeProcess(pid, process, Math.max(...new Set(placed.map(({ lane }) => lane))));
    for (const place of placed) slices.set(spanKey(place.span), { ...place, pid });
  }
  for (const slice of slices.values()) yield* drawSlice(slice);
  yield* drawArrows(slices);
}

function groupByProcess(spans: readonly RecordedSpan[]): Map<string, ShownSpan[]> {
  let origin = spans[0]?.startNs ?? 0n;
  for (const { startNs } of spans) if (startNs < origin) origin = startNs;
  const processes = new Map<string, ShownSpan[]>();
  for (const span of spans) {
    const shown = { ...span, start: Number(span.startNs - origin), end: Number(span.endNs - origin) };
    const members = processes.get(span.process);
    if (members === undefined) processes.set(span.process, [shown]);
    else members.push(shown);
  }
  return new Map([...processes].sort(([left], [right]) => (left < right ? -1 : 1)));
}

function* describeProcess(pid: number, name: string, lastLane: number): Generator<TraceEvent, void, undefined> {
  yield { ph: 'M', name: 'process_name', pid, args: { name } };
  for (let lane = 0; lane <= lastLane; lane++) {
    const tid = lane + 1;
    yield { ph: 'M', name: 'thread_name', pid, tid, args: { name: `lane ${tid}` } };
    yield { ph: 'M', name: 'thread_sort_index', pid, tid, args: { sort_index: tid } };
  }
}

function* drawSlice({ span, pid, lane, start, end }: Slice): Generator<TraceEvent, void, undefined> {
  const where = { pid, tid: lane + 1 };
  const args: Record<string, AttributeValue> = { ...span.attributes, trace_id: span.traceId, span_id: span.spanId };
  if (span.error !== undefined) args['error'] = span.error;
  yield { ph: 'X', name: span.name, cat: KINDS[span.kind] ?? KINDS[0], ts: start / 1e3, dur: (end - start) / 1e3, ...where, args };
  for (const { name, timeNs, attributes } of span.events) {
    const time = Math.min(Math.max(start + Number(timeNs - span.startNs), start), end);
    yield { ph: 'i', s: 't', name, cat: 'event', ts: time / 1e3, ...where, args: attributes };
  }
}

function* drawArrows(slices: ReadonlyMap<string, Slice>): Generator<TraceEvent, void, undefined> {
  let id = 0;
  for (const target of slices.values()) {
    const { traceId, parentSpanId, links } = target.span;
    const parent = slices.get(spanKey({ traceId, spanId: parentSpanId }));
    const sources = links.map((link) => ({ name: 'link', source: slices.get(spanKey(link)) }));
    if (parent !== undefined && parent.pid !== target.pid) sources.push({ name: 'call', source: parent });
    for (const { name, source } of sources) {
      // Arrows cannot go back in time: of two spans that link each other only the link to the earlier one is drawn.
      if (source === undefined || source.start > target.start) continue;
      id += 1;
      yield { ph: 's', id, name, cat: name, ts: source.start / 1e3, pid: source.pid, tid: source.lane + 1 };
      yield { ph: 'f', bp: 'e', id, name, cat: name, ts: target.start / 1e3, pid: target.pid, tid: target.lane + 1 };
    }
  }
}

function spanKey({ traceId, spanId }: { readonly traceId: string; readonly spanId: string }): string {
  return `${traceId}/${spanId}`;
}
