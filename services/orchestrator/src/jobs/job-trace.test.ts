/** What a job's trace keeps, and what it says where it cannot. */
import { expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import type { SpanRecorder } from '@secateur/telemetry';
import { pino } from 'pino';
import type { NodePool } from '../scheduler/node-pool.js';
import { JobTrace } from './job-trace.js';

const CHUNKS = [Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)];
const NO_NODES = { healthy: [] } as unknown as NodePool;

/** Drains three parts into a store that answers as it is told; what was asked of it, and the lines of the log. */
async function drain(answer: () => Promise<void>) {
  const asked: [string, number, number][] = [];
  const lines: { level: number; msg: string }[] = [];
  const recorder: Pick<SpanRecorder, 'drain'> = {
    async *drain() {
      yield* await Promise.resolve(CHUNKS);
    },
  };
  const store = {
    addTrace: (id: string, token: number, [first = 0]: Uint8Array) => {
      asked.push([id, token, first]);
      return answer();
    },
  };
  const logger = pino({ level: 'debug' }, { write: (line) => lines.push(JSON.parse(line) as { level: number; msg: string }) });
  const trace = new JobTrace({ jobId: 'job', token: 4 }, true, recorder as SpanRecorder, store, logger);
  trace.add('0'.repeat(32));
  await trace.drain(NO_NODES);
  return { asked, lines: lines.map(({ level, msg }) => [logger.levels.labels[level], msg]) };
}

test('spans are stored by the lease of the job', async () => {
  const { asked, lines } = await drain(() => Promise.resolve());
  expect(asked).toEqual([1, 2, 3].map((first) => ['job', 4, first]));
  expect(lines).toEqual([]);
});

test('a store that keeps none does not fail the job, and is told of once', async () => {
  const { asked, lines } = await drain(() => Promise.reject(new SecateurError('UNAVAILABLE', 'The job database cannot be reached.')));
  expect(asked).toHaveLength(3);
  expect(lines).toEqual([['warn', expect.stringContaining('could not be kept')]]);
});

test('that the job went elsewhere is no problem', async () => {
  const { lines } = await drain(() => Promise.reject(new SecateurError('LEASE_LOST', 'Job job is not run here any more.')));
  expect(new Set(lines.map(([level]) => level))).toEqual(new Set(['debug']));
});
