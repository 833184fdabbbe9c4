import type { PruningClient } from '@secateur/client';

/** A span, as far as tests look at it. */
export interface RecordedSpan {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string | number>;
}

interface OtlpSpan {
  readonly name: string;
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
    for (const { name, attributes = [] } of resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans))) {
      const values = attributes.map(({ key, value }) => [key, value.stringValue ?? Number(value.intValue)] as const);
      spans.push({ name, attributes: new Map(values) });
    }
  }
  return spans;
}
