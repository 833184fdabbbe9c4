import { expect, test } from '@jest/globals';
import { JobEvent } from '@secateur/proto/job';
import { createByteLines, createLines } from './progress.js';

type Event = NonNullable<JobEvent['event']>;

function linesOf(...events: Event[]): string[] {
  const lines: string[] = [];
  const progress = createLines((line) => lines.push(line));
  for (const event of events) progress.onEvent(JobEvent.fromPartial({ event }));
  return lines;
}

test('one line for each thing people care about, none for every group', () => {
  const projection = { name: 'q', rows: 2, columns: 4, record: { baselineQuality: 0.9, bestQuality: 0.95, dropped: 6 } };
  expect(
    linesOf(
      { $case: 'planned', value: { layers: 2, resumedLayers: 1, samples: 8, sequenceLength: 16, weights: 12_345 } },
      { $case: 'nodeJoined', value: { address: 'a:1', name: 'node-0' } },
      { $case: 'progress', value: { layer: 0, step: 'collect', done: 1, total: 2 } },
      JobEvent.fromPartial({ event: { $case: 'layerFinished', value: { layer: 1, seconds: 65, projections: [projection] } } }).event!,
      { $case: 'nodeLost', value: { address: 'a:1', name: 'node-0', reason: 'It is gone.' } },
      { $case: 'snapshotFailed', value: { layer: 1, reason: 'Cannot write /out/1: no space is left.' } },
    ),
  ).toEqual([
    '2 layers, 12,345 weights in projections, 8 samples of 16 tokens, going on after layer 1',
    'node node-0 joined (a:1)',
    'layer 2: 75.00 % zero, quality 0.9000 -> 0.9500, 1 min 5 s',
    'node node-0 lost (a:1): It is gone; its work goes to the nodes that are left',
    'hidden states after layer 1 are not kept, the job goes on without: Cannot write /out/1: no space is left.',
  ]);
});

test('one line for each tenth of the bytes', () => {
  const lines: string[] = [];
  const progress = createByteLines((line) => lines.push(line));
  for (const done of [1, 204, 205, 300, 999, 2048]) progress.onProgress(done, 2048);
  expect(lines).toEqual(['10 % of 2.0 KiB', '40 % of 2.0 KiB', '100 % of 2.0 KiB']);
});
