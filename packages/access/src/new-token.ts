import { createHash, randomBytes } from 'node:crypto';
import type { TokenEntry } from './token-file.js';

const TOKEN_BYTES = 32;
/** Lets scanners and our own log find tokens in texts. */
const TOKEN_PREFIX = 'secateur_';

/** A random token, and the entry by which a token file knows it. */
export function newToken(owner: Omit<TokenEntry, 'sha256'>): { readonly token: string; readonly entry: TokenEntry } {
  const token = `${TOKEN_PREFIX}${randomBytes(TOKEN_BYTES).toString('base64url')}`;
  return { token, entry: { ...owner, sha256: createHash('sha256').update(token).digest('hex') } };
}
