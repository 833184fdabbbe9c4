import { context as contextApi, SpanStatusCode, trace, type Attributes, type Link, type Span, type SpanContext } from '@opentelemetry/api';
import { Attribute, type SpanName } from './names.js';

const tracer = trace.getTracer('@secateur/telemetry');

export interface SpanSettings {
  readonly attributes?: Attributes;
  readonly links?: readonly Link[];
  /** A span of another process or an earlier time. Defaults to the active span. */
  readonly parent?: SpanContext;
  /** Begins a trace of its own. */
  readonly root?: boolean;
}

/** Runs work in a span, which ends with it. Errors are recorded and thrown on; work that was cancelled did not fail. */
export async function withSpan<Result>(
  name: SpanName,
  { attributes = {}, links = [], parent, root = false }: SpanSettings,
  work: (span: Span) => Result | Promise<Result>,
): Promise<Result> {
  const active = contextApi.active();
  const outer = parent === undefined ? active : trace.setSpanContext(active, parent);
  const span = tracer.startSpan(name, { attributes, links: [...links], root }, outer);
  try {
    return await contextApi.with(trace.setSpan(outer, span), () => work(span));
  } catch (error) {
    recordFailure(span, error);
    throw error;
  } finally {
    span.end();
  }
}

function recordFailure(span: Span, error: unknown): void {
  const type = errorType(error);
  if (type === 'CANCELLED' || type === 'AbortError') {
    span.setAttribute(Attribute.CANCELLED, true);
    return;
  }
  const exception = error instanceof Error ? error : new Error(String(error));
  span.recordException(exception);
  span.setAttribute('error.type', type);
  span.setStatus({ code: SpanStatusCode.ERROR, message: exception.message });
}

/** The reason of errors that have one (SecateurError), else the name. */
function errorType(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  return 'reason' in error && typeof error.reason === 'string' ? error.reason : error.name;
}
