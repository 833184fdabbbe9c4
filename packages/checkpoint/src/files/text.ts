import { SecateurError } from '@secateur/core';

/** A text is held in memory as a whole. */
export const MAXIMUM_TEXT_BYTES = 64 << 20;

/** The text of UTF-8 bytes. `where` names them in errors. */
export function decodeText(content: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    throw new SecateurError('INVALID_DATA', `${where}: it is not valid UTF-8.`);
  }
}

export function requireTextSize(where: string, bytes: number): void {
  if (bytes <= MAXIMUM_TEXT_BYTES) return;
  throw new SecateurError(
    'INVALID_DATA',
    `${where}: a text of ${bytes} bytes is above the limit of ${MAXIMUM_TEXT_BYTES}; split it into documents, one per line of a .jsonl file.`,
  );
}
