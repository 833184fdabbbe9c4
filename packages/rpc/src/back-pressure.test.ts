import { describe, expect, test } from '@jest/globals';
import { startTestServer, TestDefinition } from '../test/support.js';

const MESSAGE_BYTES = 1 << 20;
/** Two that wait at the writer, 8 MiB of window, sixteen in the reader's stream, and what the sockets hold. */
const MAXIMUM_AHEAD = 40;
const MESSAGES = 120;

describe('back-pressure', () => {
  test('a slow reader holds the writer back', async () => {
    let written = 0;
    let farthestAhead = 0;
    let read = 0;
    await using server = await startTestServer({
      async *list() {
        for (; written < MESSAGES; written++) {
          farthestAhead = Math.max(farthestAhead, written - read);
          yield { offset: written, data: Buffer.alloc(MESSAGE_BYTES) };
        }
      },
    });
    for await (const { offset } of server.connect().client(TestDefinition).list({}, { timeoutMs: 20_000 })) {
      expect(offset).toBe(read);
      if (read === 5) await settled(() => written);
      read += 1;
    }
    expect(read).toBe(MESSAGES);
    expect(farthestAhead).toBeGreaterThan(2);
    expect(farthestAhead).toBeLessThan(MAXIMUM_AHEAD);
  });
});

/** Resolves once a number has not changed for 200 ms: whoever changes it is held back. */
async function settled(value: () => number): Promise<void> {
  let previous: number;
  do {
    previous = value();
    await new Promise((resolve) => setTimeout(resolve, 200));
  } while (value() !== previous);
}
