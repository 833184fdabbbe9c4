import type { PruningClient } from '@secateur/client';

/** A span, as far as tests look at it. */
export interface RecordedSpan {
  readonly name: string;
  readonly seconds: number;
  readonly attributes: ReadonlyMap<string, string | number>;
}

interface OtlpSpan {
  readonly name: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes?: readonly { readonly key: string; readonly value: { readonly stringValue?: string; readonly intValue?: string } }[];
}

interface OtlpRequest {
  readonly resourceSpans: readonly { readonly scopeSpans: readonly { readonly spans: readonly OtlpSpan[] }[] }[];
}

/** The spans that were recorded of a job. */
export async function recordedSpans(client: PruningClient, jobId: string): Promise<RecordedSpan[]> {
  const spans: RecordedSpan[] = [];
  for await (const part of client.getTrace(jobId)) {
    const { resourceSpans } = JSON.parse(Buffer.from(part).toString()) as OtlpRequest;
    for (const { name, startTimeUnixNano, endTimeUnixNano, attributes = [] } of resourceSpans.flatMap(({ scopeSpans }) =>
      scopeSpans.flatMap((scope) => scope.spans),
    )) {
      const values = attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)] as const);
      const seconds = Number(BigInt(endTimeUnixNano) - BigInt(startTimeUnixNano)) / 1e9;
      spans.push({ name, seconds, attributes: new Map(values) });
    }
  }
  return spans;
}
