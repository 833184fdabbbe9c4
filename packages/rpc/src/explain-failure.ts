import { randomUUID } from 'node:crypto';
import { SecateurError } from '@secateur/core';
import type { RpcLogger } from './logger.js';

/** What a caller is told of an error; defects keep their text in the log, and callers get an id to find them by. */
export function explain(cause: unknown, method: string, logger: RpcLogger | undefined): SecateurError {
  if (cause instanceof SecateurError) return cause;
  const id = randomUUID();
  logger?.error({ err: cause, method, errorId: id }, 'a call failed by a defect');
  return new SecateurError('INTERNAL', `Internal error ${id}; the server's log has the details.`, { cause, metadata: { errorId: id } });
}

/** The same of what a handler threw. Whatever it throws when it is asked to stop, the reason of the signal is why it was asked. */
export function explainFailure(cause: unknown, method: string, signal: AbortSignal, logger: RpcLogger | undefined): SecateurError {
  return signal.aborted && signal.reason instanceof SecateurError ? signal.reason : explain(cause, method, logger);
}
