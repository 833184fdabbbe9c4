import { createHash, randomBytes } from 'node:crypto';
import { SecateurError } from '@secateur/core';
import type { TokenEntry } from './token-file.js';

const TOKEN_BYTES = 32;
/** Lets scanners and our own log find tokens in texts. */
const TOKEN_PREFIX = 'secateur_';

/** Throws INVALID_REQUEST where no file may have an entry for such an owner. */
export async function checkTokenOwner(owner: Pick<TokenEntry, 'name' | 'tenant'>): Promise<void> {
  // Checking takes a library that few commands need.
  const { ownerProblems } = await import('./token-file.js');
  const violations = ownerProblems(owner);
  if (violations.length > 0) throw new SecateurError('INVALID_REQUEST', 'No token was made:', { violations });
}

/** A random token, and the entry by which a token file knows it. */
export function newToken(owner: Omit<TokenEntry, 'sha256'>): { readonly token: string; readonly entry: TokenEntry } {
  const token = `${TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
  return { token, entry: { ...owner, sha256: createHash('sha256').update(token).digest('hex') } };
}
