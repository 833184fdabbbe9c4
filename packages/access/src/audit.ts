import { SecateurError } from '@secateur/core';
import type { Caller, EndedCall } from '@secateur/rpc';
import type { Logger } from 'pino';
import { isAudited, PRUNING } from './roles.js';

/** Writes one line for every call that may have changed something. */
export function auditCalls(logger: Logger): (call: EndedCall) => void {
  return ({ method, peer, caller: { name, tenant }, request, response, outcome }) => {
    if (!isAudited(method)) return;
    const jobId = jobIdOf(response) ?? jobIdOf(request) ?? '';
    logger.info({ audit: true, caller: name, tenant, method, jobId, peer, outcome }, 'call');
  };
}

/** What a service does to a job by itself, in the name of somebody, without a call. */
export interface AuditedAction {
  readonly caller: Pick<Caller, 'name' | 'tenant'>;
  /** The method of PruningService that does the same. */
  readonly method: 'CreateJob' | 'CancelJob' | 'PauseJob' | 'ResumeJob' | 'DeleteJob';
  readonly jobId: string;
}

export type AuditActions = <Result>(action: AuditedAction, act: () => Promise<Result>) => Promise<Result>;

/** Writes one line for every action when it is over, as for a call. */
export function auditActions(logger: Logger): AuditActions {
  return async ({ caller: { name, tenant }, method, jobId }, act) => {
    const write = (outcome: string): void =>
      logger.info({ audit: true, caller: name, tenant, method: PRUNING + method, jobId, outcome }, 'action');
    try {
      const result = await act();
      write('OK');
      return result;
    } catch (error) {
      write(error instanceof SecateurError ? error.reason : 'INTERNAL');
      throw error;
    }
  };
}

/** Requests name the job they are about, answers bring the job itself. */
function jobIdOf(message: unknown): string | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  if ('jobId' in message && typeof message.jobId === 'string' && message.jobId !== '') return message.jobId;
  if ('job' in message && typeof message.job === 'object' && message.job !== null && 'id' in message.job) return String(message.job.id);
  return undefined;
}
