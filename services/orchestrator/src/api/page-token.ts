import { SecateurError } from '@secateur/core';
import type { Job } from '@secateur/proto/job';
import { creationTime } from '../store/job-record.js';
import type { ListPosition } from '../store/job-store.js';

/** Milliseconds that a Date can be of. */
const POSITION = /^(?<milliseconds>\d{1,15})\.(?<id>[A-Za-z0-9_-]{1,63})$/;

/** What stands for the place after a job in a list. It tells only what the job does, and is of use also when the job is there no more. */
export function pageTokenAfter(job: Job): string {
  return Buffer.from(`${creationTime(job).getTime()}.${job.id}`).toString('base64url');
}

/** The place that a token stands for; INVALID_REQUEST when it stands for none. */
export function readPageToken(token: string): ListPosition {
  const { milliseconds, id } = POSITION.exec(Buffer.from(token, 'base64url').toString())?.groups ?? {};
  if (milliseconds === undefined || id === undefined) {
    const violation = { field: 'page_token', description: 'must be the next_page_token of the answer before' };
    throw new SecateurError('INVALID_REQUEST', `${violation.field} ${violation.description}.`, { violations: [violation] });
  }
  return { createdAt: new Date(Number(milliseconds)), id };
}
