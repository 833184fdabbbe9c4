import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { HiddenStream } from '@secateur/proto/kernel_service';
import type { GroupStep } from './hidden-states.js';
import type { StepProgress } from './job-run.js';

/** The step that moves some hidden states of groups through a block: a span for each node, progress for each group. */
export function propagateStep(shardId: string, streams: readonly HiddenStream[], progress: StepProgress): GroupStep {
  return (member, groupIndices, onGroup, signal) =>
    withSpan(SpanName.PROPAGATE, { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length } }, () =>
      member.propagate(
        shardId,
        groupIndices,
        streams,
        (groupIndex) => {
          onGroup(groupIndex);
          progress.advance();
        },
        signal,
      ),
    );
}
