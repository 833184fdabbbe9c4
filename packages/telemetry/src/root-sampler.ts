import { createTraceState, type Attributes, type Context, type Link, type SpanKind } from '@opentelemetry/api';
import { SamplingDecision, type Sampler, type SamplingResult } from '@opentelemetry/sdk-trace-base';
import { Attribute } from './names.js';
import { RECORD_STATE } from './span-recorder.js';

/** Decides for whole traces: they are sampled when spans are exported, or when the root span asks to be recorded. */
export class RootSampler implements Sampler {
  constructor(private readonly exporting: boolean) {}

  shouldSample(
    _context: Context,
    _traceId: string,
    _name: string,
    _kind: SpanKind,
    attributes: Attributes,
    _links: Link[],
  ): SamplingResult {
    if (attributes[Attribute.TRACE_RECORD] === true) {
      const traceState = createTraceState(`${RECORD_STATE.key}=${RECORD_STATE.value}`);
      return { decision: SamplingDecision.RECORD_AND_SAMPLED, traceState };
    }
    return { decision: this.exporting ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD };
  }

  toString(): string {
    return `RootSampler{exporting=${this.exporting}}`;
  }
}
