import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { drawFromJoined, type JoinedSource } from './draw-from-joined.js';

/** Every letter is a token. */
function makeSource(texts: readonly string[], maximumBytes: number): JoinedSource {
  return {
    name: 'all',
    documents: { count: texts.length, read: (index) => Promise.resolve(texts[index]!) },
    encode: (text) => Promise.resolve(Int32Array.from(text, (letter) => letter.charCodeAt(0))),
    maximumBytes,
  };
}

const toTexts = (ids: Int32Array, length: number): string[] => String.fromCharCode(...ids).match(new RegExp(`.{${length}}`, 'gs')) ?? [];

test('windows come from all documents, joined by a space', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.string(), { minLength: 1 }),
      fc.integer({ min: 1, max: 9 }),
      fc.maxSafeNat(),
      async (texts, length, seed) => {
        const joined = texts.join(' ');
        const drawing = drawFromJoined(makeSource(texts, 1000), 4, length, seed);
        if (joined.length <= length) return expect(drawing).rejects.toThrow(/all: .* are missing/);
        const { ids, documents } = await drawing;
        expect(documents).toBe(texts.length);
        for (const window of toTexts(ids, length)) expect(joined.slice(0, -1)).toContain(window);
        expect((await drawFromJoined(makeSource(texts, 1000), 4, length, seed)).ids).toEqual(ids);
      },
    ),
    { seed: 20250516 },
  ));

test('of too much text random documents are taken, each once', async () => {
  const texts = Array.from({ length: 100 }, (_, index) => String.fromCharCode(0x100 + index).repeat(5));
  const { ids, documents } = await drawFromJoined(makeSource(texts, 200), 200, 5, 1);
  // Each document has 10 bytes.
  expect(documents).toBe(20);
  const used = new Set(ids);
  used.delete(' '.charCodeAt(0));
  expect(used.size).toBe(20);
  expect(Math.max(...used) - Math.min(...used)).toBeGreaterThan(50);
});
