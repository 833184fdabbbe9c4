import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { AllocatedProjection } from './allocate-block.js';
import { BlockWriter } from './block-writer.js';

const none = new AbortController().signal;

/** What is written is not looked at. */
const projectionOf = (name: string): AllocatedProjection => ({ projection: { name } }) as AllocatedProjection;

describe('projections of a block', () => {
  test('are written as they come, and all are when it is over', async () => {
    const begun: string[] = [];
    const writer = new BlockWriter(async ({ projection }) => `digest of ${begun[begun.push(projection.name) - 1]}`, 2);
    writer.add(projectionOf('before'));
    const written = writer.run(none);
    await delay(1);
    expect(begun).toEqual(['before']);
    writer.add(projectionOf('meanwhile'));
    await delay(1);
    expect(begun).toEqual(['before', 'meanwhile']);
    writer.end();
    expect([...(await written)].map(([name, { digest }]) => [name, digest])).toEqual([
      ['before', 'digest of before'],
      ['meanwhile', 'digest of meanwhile'],
    ]);
  });

  test('are each written once, in the order they come and no more than a few at a time', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.record({ comesAfter: fc.nat(2), takes: fc.nat(3) }), { maxLength: 10 }),
        async (atOnce, parts) => {
          const begun: string[] = [];
          let running = 0;
          const writer = new BlockWriter(async ({ projection: { name } }) => {
            begun.push(name);
            running += 1;
            expect(running).toBeLessThanOrEqual(atOnce);
            await delay(parts[Number(name)]!.takes);
            running -= 1;
            return name;
          }, atOnce);
          const written = writer.run(none);
          for (const [index, { comesAfter }] of parts.entries()) {
            if (comesAfter > 0) await delay(comesAfter);
            writer.add(projectionOf(String(index)));
          }
          writer.end();
          expect((await written).size).toBe(parts.length);
          expect(begun).toEqual(parts.map((_, index) => String(index)));
        },
      ),
      { numRuns: 30 },
    ));

  test('are begun no more once one could not be written, and what was begun has ended then', async () => {
    const ended: string[] = [];
    const writer = new BlockWriter(async ({ projection: { name } }) => {
      await delay(name === 'slow' ? 20 : 1);
      ended.push(name);
      if (name === 'failing') throw new Error('no space is left');
      return '';
    }, 2);
    for (const name of ['slow', 'failing', 'never']) writer.add(projectionOf(name));
    await expect(writer.run(none)).rejects.toThrow('no space is left');
    expect(ended).toEqual(['failing', 'slow']);
    // Allocations may still end.
    writer.add(projectionOf('late'));
    await delay(5);
    expect(ended).toEqual(['failing', 'slow']);
  });

  test('are waited for no longer than the work goes on', async () => {
    const controller = new AbortController();
    const writer = new BlockWriter(async () => '', 3);
    const written = writer.run(controller.signal);
    writer.add(projectionOf('first'));
    await delay(1);
    controller.abort('cancel');
    await expect(written).rejects.toMatchObject({ reason: 'CANCELLED' });
  });

  test('are not waited for when the work is over already', async () => {
    const writer = new BlockWriter(async () => '', 2);
    await expect(writer.run(AbortSignal.abort('cancel'))).rejects.toMatchObject({ reason: 'CANCELLED' });
  });
});
