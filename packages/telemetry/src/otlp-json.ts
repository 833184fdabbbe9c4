/** The part of an OTLP/JSON ExportTraceServiceRequest that is shown. */

export type AttributeValue = string | number | boolean | readonly AttributeValue[] | null;

interface RecordedEvent {
  readonly name: string;
  readonly timeNs: bigint;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
}

export interface RecordedSpan {
  /** Service and instance that made the span. */
  readonly process: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client. */
  readonly kind: number;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
  readonly events: readonly RecordedEvent[];
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  /** Text of the error; undefined when the span did not fail. */
  readonly error: string | undefined;
}

interface OtlpValue {
  readonly stringValue?: string;
  readonly intValue?: number | string;
  readonly doubleValue?: number;
  readonly boolValue?: boolean;
  readonly arrayValue?: { readonly values?: readonly OtlpValue[] };
}

interface OtlpAttribute {
  readonly key: string;
  readonly value: OtlpValue;
}

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string | number;
  readonly endTimeUnixNano: string | number;
  readonly attributes?: readonly OtlpAttribute[];
  readonly events?: readonly {
    readonly name: string;
    readonly timeUnixNano: string | number;
    readonly attributes?: readonly OtlpAttribute[];
  }[];
  readonly links?: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly status?: { readonly code?: number; readonly message?: string };
}

interface OtlpRequest {
  readonly resourceSpans?: readonly {
    readonly resource?: { readonly attributes?: readonly OtlpAttribute[] };
    readonly scopeSpans?: readonly { readonly spans?: readonly OtlpSpan[] }[];
  }[];
}

const STATUS_ERROR = 2;

export function* readSpans(otlpJson: Uint8Array): Generator<RecordedSpan, void, undefined> {
  const request = JSON.parse(Buffer.from(otlpJson.buffer, otlpJson.byteOffset, otlpJson.byteLength).toString()) as OtlpRequest;
  for (const { resource, scopeSpans } of request.resourceSpans ?? []) {
    const { 'service.name': service, 'service.instance.id': instance } = readAttributes(resource?.attributes);
    const process = [service, instance].filter((part) => part !== undefined).join(' ');
    for (const { spans } of scopeSpans ?? []) {
      for (const span of spans ?? []) yield readSpan(span, process);
    }
  }
}

function readSpan(span: OtlpSpan, process: string): RecordedSpan {
  const { traceId, spanId, parentSpanId = '', name, kind, status, links = [], events = [] } = span;
  return {
    process,
    traceId,
    spanId,
    parentSpanId,
    name,
    kind,
    startNs: BigInt(span.startTimeUnixNano),
    endNs: BigInt(span.endTimeUnixNano),
    attributes: readAttributes(span.attributes),
    events: events.map((event) => ({ name: event.name, timeNs: BigInt(event.timeUnixNano), attributes: readAttributes(event.attributes) })),
    links,
    error: status?.code === STATUS_ERROR ? (status.message ?? '') : undefined,
  };
}

function readAttributes(attributes: readonly OtlpAttribute[] = []): Record<string, AttributeValue> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, readValue(value)]));
}

function readValue({ stringValue, intValue, doubleValue, boolValue, arrayValue }: OtlpValue): AttributeValue {
  if (arrayValue !== undefined) return (arrayValue.values ?? []).map(readValue);
  if (intValue !== undefined) return Number(intValue);
  return stringValue ?? doubleValue ?? boolValue ?? null;
}
