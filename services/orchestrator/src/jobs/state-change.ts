import type { SecateurError } from '@secateur/core';
import type { JobState } from '@secateur/proto/job';
import { toStatusProto } from '@secateur/rpc';
import type { NewEvent } from '../store/job-record.js';

/** The event of a job that reaches a state; `error` says why it failed, or why it waits again. */
export function becomes(state: JobState, error?: SecateurError): NewEvent {
  return { $case: 'stateChanged', value: { state, error: error && toStatusProto(error) } };
}
