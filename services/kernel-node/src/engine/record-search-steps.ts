import type { SearchStep } from '@secateur/native';
import { Attribute, EventName } from '@secateur/telemetry';
import { trace } from '@opentelemetry/api';

/** Adds to the active span one event for each learning rate that was tried, with the best quality it reached. */
export function recordSearchSteps(steps: readonly SearchStep[]): void {
  const span = trace.getActiveSpan();
  if (span?.isRecording() !== true) return;
  const best = new Map<number, SearchStep>();
  for (const step of steps) {
    const known = best.get(step.learningRate);
    if (known === undefined || step.quality > known.quality) best.set(step.learningRate, step);
  }
  for (const { learningRate, step, quality } of best.values()) {
    span.addEvent(EventName.LEARNING_RATE_TRIED, {
      [Attribute.LEARNING_RATE]: learningRate,
      [Attribute.STEP]: step,
      // Exporters that write JSON have no infinity.
      ...(Number.isFinite(quality) ? { [Attribute.QUALITY]: quality } : {}),
    });
  }
}
