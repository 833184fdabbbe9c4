import { SecateurError } from '@secateur/core';

export function noSuchJob(id: string): SecateurError {
  return new SecateurError('NOT_FOUND', `There is no job ${id}.`);
}

/** The job that is meant was deleted, and its id taken again. */
export function anotherJob(id: string, createdAt: Date): SecateurError {
  const present = `its id belongs to one that was accepted at ${createdAt.toISOString()}`;
  return new SecateurError('NOT_FOUND', `The job ${id} that is meant was deleted; ${present}.`);
}

/** Says the same whatever the job of that id is: it may be another tenant's. */
export function idTaken(id: string): SecateurError {
  return new SecateurError('ALREADY_EXISTS', `The id ${id} is taken; choose another.`);
}

export function notEnded(id: string): SecateurError {
  return new SecateurError('FAILED_PRECONDITION', `Job ${id} has not ended; cancel it first.`);
}

export function leaseLost(id: string): SecateurError {
  return new SecateurError('LEASE_LOST', `Job ${id} is not run here any more; another orchestrator goes on with it.`);
}

export function beingRemoved(id: string): SecateurError {
  return new SecateurError('FAILED_PRECONDITION', `Job ${id} is being deleted.`);
}

/** Names no job: it may be another tenant's. */
export function outputTaken(output: string): SecateurError {
  return new SecateurError('ALREADY_EXISTS', `Another job is writing to ${output}, or waits to; choose another output folder.`);
}

export function tooManyJobs(tenant: string, maximum: number): SecateurError {
  return new SecateurError(
    'RESOURCE_EXHAUSTED',
    `Tenant ${tenant} has ${maximum} jobs that have not ended, as many as it may; wait for one, or cancel or delete some.`,
  );
}
