import type { EndedCall } from '@secateur/rpc';
import type { Logger } from 'pino';
import { isAudited } from './roles.js';

/** Writes one line for every call that may have changed something. */
export function auditCalls(logger: Logger): (call: EndedCall) => void {
  return ({ method, peer, caller: { name, tenant }, request, response, outcome }) => {
    if (!isAudited(method)) return;
    const jobId = jobIdOf(response) ?? jobIdOf(request) ?? '';
    logger.info({ audit: true, caller: name, tenant, method, jobId, peer, outcome }, 'call');
  };
}

/** Requests name the job they are about, answers bring the job itself. */
function jobIdOf(message: unknown): string | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  if ('jobId' in message && typeof message.jobId === 'string' && message.jobId !== '') return message.jobId;
  if ('job' in message && typeof message.job === 'object' && message.job !== null && 'id' in message.job) return String(message.job.id);
  return undefined;
}
