import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { SecateurError } from '@secateur/core';
import { watchFiles } from '@secateur/rpc';
import type { Logger } from 'pino';
import { z } from 'zod';
import { TENANT_PATTERN, type Authenticator, type Credentials, type Identity } from './authenticator.js';
import { USER_ROLES } from './roles.js';

const entrySchema = z.strictObject({
  name: z.string().min(1, 'must not be empty').max(100, 'must have at most 100 characters'),
  tenant: z.string().regex(TENANT_PATTERN, 'must be letters, digits, ".", "_" or "-", at most 63'),
  role: z.enum(USER_ROLES),
  sha256: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits'),
});

/** What the file knows of a token: not the token itself. */
export type TokenEntry = z.infer<typeof entrySchema>;

/** Tokens whose hashes are in a file, which is read again when it changes. */
export class TokenFile implements Authenticator, Disposable {
  private readonly watch: Disposable;

  private constructor(
    private readonly path: string,
    private entries: readonly TokenEntry[],
    private readonly logger: Logger,
  ) {
    this.watch = watchFiles([path], () => this.reload());
  }

  static async open(path: string, logger: Logger): Promise<TokenFile> {
    return new TokenFile(path, await readTokenEntries(path), logger);
  }

  authenticate({ token }: Credentials): Promise<Identity | undefined> {
    if (token === undefined) return Promise.resolve(undefined);
    const hash = createHash('sha256').update(token).digest();
    let found: TokenEntry | undefined;
    // All are compared, each in constant time, so that the time tells nothing.
    for (const entry of this.entries) {
      if (timingSafeEqual(hash, Buffer.from(entry.sha256, 'hex'))) found = entry;
    }
    return Promise.resolve(found && { name: found.name, tenant: found.tenant, role: found.role });
  }

  [Symbol.dispose](): void {
    this.watch[Symbol.dispose]();
  }

  private async reload(): Promise<void> {
    try {
      this.entries = await readTokenEntries(this.path);
      this.logger.info({ path: this.path, tokens: this.entries.length }, 'tokens were read again');
    } catch (error) {
      this.logger.warn({ err: error }, 'the changed token file is not used');
    }
  }
}

/** What keeps a file from having an entry for an owner, by the options that name it. */
export function ownerProblems({ name, tenant }: Pick<TokenEntry, 'name' | 'tenant'>): readonly { field: string; description: string }[] {
  const checked = entrySchema.pick({ name: true, tenant: true }).safeParse({ name, tenant });
  return (checked.error?.issues ?? []).map(({ path, message }) => ({ field: `--${path.join('.')}`, description: message }));
}

export async function readTokenEntries(path: string): Promise<readonly TokenEntry[]> {
  let content: unknown;
  try {
    content = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    // The parser's text would show a piece of the file.
    throw wrong(`${path} cannot be read as JSON${cause instanceof SyntaxError ? '' : `: ${String(cause)}`}`);
  }
  const parsed = z.array(entrySchema).safeParse(content);
  if (!parsed.success) {
    const [{ path: place, message } = { path: [], message: '' }] = parsed.error.issues;
    throw wrong(`${path} is no list of entries as \`secateur token\` prints them: ${place.join('.') || 'the whole'}: ${message}`);
  }
  const hashes = new Set(parsed.data.map(({ sha256 }) => sha256));
  if (hashes.size < parsed.data.length) throw wrong(`${path} has the same sha256 twice; each token belongs to one caller`);
  return parsed.data;
}

function wrong(description: string): SecateurError {
  return new SecateurError('INVALID_REQUEST', `Tokens cannot be used: --tokens ${description}.`, {
    violations: [{ field: '--tokens', description }],
  });
}
