import { expect, test } from '@jest/globals';
import { EventSeries } from './event-series.js';
import type { Occurrence } from './prune-job-events.js';

const OBJECT = { name: 'qwen-70', uid: '1b4e28ba-2fa1-11d2-883f-0016d3cca427' };
const lost = (seconds: number, note = 'Node a is no longer used.'): Occurrence => ({
  reason: 'NodeLost',
  note,
  time: new Date(Date.UTC(2026, 0, 1, 0, 0, seconds)),
});

test('the same again counts in the same event, unless it is long ago', () => {
  const series = new EventSeries(OBJECT);
  const first = series.add(lost(0));
  expect(first).toMatchObject({ count: 1, time: lost(0).time, lastTime: lost(0).time });
  expect(series.add(lost(1, 'Node b is no longer used.'))).toMatchObject({ count: 1 });
  const second = series.add(lost(300));
  expect(second).toEqual({ ...first, count: 2, lastTime: lost(300).time });
  expect(series.add(lost(600))).toMatchObject({ name: first.name, count: 3 });
  const later = series.add(lost(961));
  expect(later).toMatchObject({ count: 1, time: lost(961).time });
  expect(later.name).not.toBe(first.name);
});

test('a name is that of the object and of what happened, the same to whoever tells it', () => {
  const { name } = new EventSeries(OBJECT).add(lost(0));
  expect(name).toMatch(/^qwen-70\.[0-9a-f]{16}$/);
  expect(new EventSeries(OBJECT).add(lost(0)).name).toBe(name);
  expect(new EventSeries({ ...OBJECT, uid: 'another' }).add(lost(0)).name).not.toBe(name);
  const long = new EventSeries({ ...OBJECT, name: `${'a'.repeat(199)}.b` }).add(lost(0)).name;
  expect(long).toMatch(/^a{199}\.[0-9a-f]{16}$/);
});

test('a note has no more bytes than Kubernetes takes, and no half characters', () => {
  for (const character of ['x', 'é', '€', '😀']) {
    for (const start of ['', 'x', 'xx']) {
      const { note } = new EventSeries(OBJECT).add(lost(0, start + character.repeat(2000)));
      expect(Buffer.byteLength(note)).toBeLessThanOrEqual(1024);
      expect(Buffer.byteLength(note)).toBeGreaterThan(1024 - 4);
      expect(note).toMatch(new RegExp(`^${start}(?:${character})+…$`, 'u'));
    }
  }
  const { note } = new EventSeries(OBJECT).add(lost(0, 'x'.repeat(1024)));
  expect(note).toBe('x'.repeat(1024));
});
