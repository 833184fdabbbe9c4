import { writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { SecateurError } from '@secateur/core';
import type { ToChild, ToParent } from './messages.js';

/** Ends this process when its parent is gone, even while it does not listen. */
const WATCH_PARENT = `
  const { workerData: parent } = require('node:worker_threads');
  setInterval(() => process.ppid === parent || process.kill(process.pid, 'SIGKILL'), 1000);
`;

/** Asks the parent for something. */
export type Ask = (question: unknown) => Promise<unknown>;

/** The begin of a process that `IsolatedProcess` starts: serves requests until it is ended. Errors that are no SecateurError end it. */
export function serveRequests(serve: (request: never, ask: Ask) => Promise<unknown>): void {
  beFirstToGo();
  new Worker(WATCH_PARENT, { eval: true, workerData: process.ppid }).unref();
  // Ctrl-C reaches every process of a terminal; when this one is no longer needed its parent ends it.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
  process.on('disconnect', () => process.exit());
  const waiting = new Map<number, (answer: unknown) => void>();
  let nextQuestion = 0;
  const send = (message: ToParent): void => void process.send?.(message);
  const ask: Ask = (question) =>
    new Promise((resolve) => {
      const id = nextQuestion++;
      waiting.set(id, resolve);
      send({ kind: 'question', id, question });
    });
  const answer = async (id: number, request: unknown): Promise<void> => {
    try {
      send({ kind: 'reply', id, reply: await serve(request as never, ask) });
    } catch (error) {
      if (!(error instanceof SecateurError)) throw error;
      send({ kind: 'failure', id, reason: error.reason, message: error.message });
    }
  };
  process.on('message', (message: ToChild) => {
    if (message.kind === 'request') {
      void answer(message.id, message.request);
      return;
    }
    waiting.get(message.id)?.(message.answer);
    waiting.delete(message.id);
  });
}

/** When memory runs out the kernel shall take this process, not its parent. */
function beFirstToGo(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch {
    // Not Linux, or not allowed; the limit of the heap remains.
  }
}
