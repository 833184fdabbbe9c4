import { addTokenEntry, checkTokenOwner, newToken, type UserRole } from '@secateur/access';
import { writeResult } from '../output/write-result.js';

export interface TokenCommandOptions {
  readonly name: string;
  readonly tenant: string;
  readonly role: UserRole;
  /** File that the entry is added to. */
  readonly tokens?: string;
  readonly json?: boolean;
}

/** Makes a token and shows it this once: the service knows only its hash. */
export async function token({ json, tokens, ...owner }: TokenCommandOptions): Promise<void> {
  await checkTokenOwner(owner);
  const made = newToken(owner);
  if (tokens !== undefined) await addTokenEntry(tokens, made.entry);
  const entry = `Entry for the list in the file of --tokens:\n${JSON.stringify(made.entry, undefined, 2)}\n`;
  writeResult(json, made, () => (tokens === undefined ? `Token, to be kept secret:\n${made.token}\n\n${entry}` : `${made.token}\n`));
}
