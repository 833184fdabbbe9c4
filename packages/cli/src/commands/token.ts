import { newToken, type UserRole } from '@secateur/access';
import { writeResult } from '../output/write-result.js';

export interface TokenCommandOptions {
  readonly name: string;
  readonly tenant: string;
  readonly role: UserRole;
  readonly json?: boolean;
}

/** Makes a token and shows it this once: the service knows only its hash. */
export function token({ json, ...owner }: TokenCommandOptions): void {
  const made = newToken(owner);
  writeResult(
    json,
    made,
    () => `Token, to be kept secret (SECATEUR_TOKEN):\n${made.token}\n\nEntry for the list in the file of --tokens:\n${JSON.stringify(made.entry, undefined, 2)}\n`,
  );
}
