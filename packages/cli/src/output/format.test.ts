import { expect, test } from '@jest/globals';
import { ProjectionReport } from '@secateur/proto/job';
import { formatBytes, formatFlops, formatLayerLine, formatQuality, formatSeconds, formatTimeLeft } from './format.js';

test.each([
  [0.04, '0.0 s'],
  [59.94, '59.9 s'],
  [59.97, '1 min 0 s'],
  [119.7, '2 min 0 s'],
  [3599.6, '1 h 0 min'],
  [7380, '2 h 3 min'],
])('%d seconds are %s', (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});

test.each([
  [0.979339, '0.9793'],
  [12.6826, '12.6826'],
  [-0.00084175, '-0.000842'],
  [0, '0.0000'],
  [Infinity, 'infinite'],
])('a quality of %d is %s', (quality, text) => {
  expect(formatQuality(quality)).toBe(text);
});

test('a layer of which nothing is pruned is told as left out', () => {
  expect(formatLayerLine({ layer: 1, projections: [], seconds: 2 })).toBe('layer 2: left out, 2.0 s');
});

test('a layer is told by its qualities, or by what swaps and repairs leave of its errors', () => {
  const projection = (changes: Parameters<typeof ProjectionReport.fromPartial>[0]) =>
    ProjectionReport.fromPartial({ rows: 2, columns: 4, record: { baselineQuality: 0.9, bestQuality: 0.95, dropped: 6 }, ...changes });
  const line = (...projections: ProjectionReport[]) => formatLayerLine({ layer: 0, projections, seconds: 1 });
  expect(line(projection({}))).toBe('layer 1: 75.00 % zero, quality 0.9000 -> 0.9500, 1.0 s');
  const repaired = projection({ repair: { errorBefore: 0.2, errorAfter: 0.1 } });
  const swapped = projection({ swap: { swaps: 3, errorBefore: 0.4, errorAfter: 0.3 } });
  const both = projection({ swap: { swaps: 3, errorBefore: 0.4, errorAfter: 0.3 }, repair: { errorBefore: 0.3, errorAfter: 0.1 } });
  expect(line(repaired, projection({ repair: { errorBefore: 0.4, errorAfter: 0.1 } }))).toContain('output error 30.00 % -> 10.00 %');
  expect(line(swapped)).toContain('output error 40.00 % -> 30.00 %');
  expect(line(both)).toContain('output error 40.00 % -> 10.00 %');
});

test('the time left follows the layers that are finished', () => {
  expect(formatTimeLeft({ seconds: 8, finished: 0, remaining: 4 })).toBe('');
  expect(formatTimeLeft({ seconds: 8, finished: 2, remaining: 3 })).toBe('12.0 s left');
  expect(formatTimeLeft({ seconds: 8, finished: 2, remaining: 0 })).toBe('');
});

test.each([
  [0, '0 bytes'],
  [1023, '1023 bytes'],
  [1536, '1.5 KiB'],
  [15 * 2 ** 30, '15.0 GiB'],
  [3 * 2 ** 52, '12288.0 TiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  [0, '0 FLOP'],
  [2.5e12, '2.5 TFLOP'],
])('%d operations are %s', (count, text) => {
  expect(formatFlops(count)).toBe(text);
});
