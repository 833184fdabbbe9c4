import { SecateurError } from '@secateur/core';
import type { CallerCertificate } from '@secateur/rpc';
import type { Role } from './roles.js';

/** Who calls, as it was proved. */
export interface Identity {
  /** For people and the audit log. */
  readonly name: string;
  /** Whose jobs and files it may see; of no meaning for processes of the cluster. */
  readonly tenant: string;
  readonly role: Role;
}

/** What a caller brought: at least one of the two. */
export interface Credentials {
  readonly token: string | undefined;
  /** Verified by the authorities of this service. */
  readonly certificate: CallerCertificate | undefined;
}

/** One way to tell who calls. */
export interface Authenticator {
  /** undefined when these are not of its kind, so that another way may be tried. Throws UNAUTHENTICATED when they are and are not valid. */
  authenticate(credentials: Credentials): Promise<Identity | undefined>;
}

/** The tenant of callers of which nothing says to which they belong. */
export const DEFAULT_TENANT = 'default';

/** Tenants become names of folders and columns, so they are short and plain. */
export const TENANT_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;

/** The text of an error never holds the token. */
export function unauthenticated(message: string, cause?: unknown): SecateurError {
  return new SecateurError('UNAUTHENTICATED', message, { cause });
}
