import { SecateurError } from '@secateur/core';

/** Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. */
export const ExitCode = { FAILED: 1, USAGE: 2, INTERRUPTED: 130 } as const;

/** The user stopped the command; the message says how to go on. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** A failure, and how to go on after it. */
export class Unfinished extends Error {
  override readonly name = 'Unfinished';

  constructor(
    readonly failure: unknown,
    readonly hint: string,
  ) {
    super(hint, { cause: failure });
  }
}

/** Tells the user what went wrong and returns the exit code. Stacks are for SECATEUR_DEBUG=1. */
export function reportError(error: unknown): number {
  if (error instanceof Unfinished) {
    const exitCode = reportError(error.failure);
    process.stderr.write(`${error.hint}\n`);
    return exitCode;
  }
  process.stderr.write(describeError(error));
  if (process.env['SECATEUR_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
  if (error instanceof Interrupted) return ExitCode.INTERRUPTED;
  return error instanceof SecateurError && error.reason === 'INVALID_REQUEST' ? ExitCode.USAGE : ExitCode.FAILED;
}

/** The message, then one line for each wrong field that it does not tell already. */
export function describeError(error: unknown): string {
  if (error instanceof Interrupted) return `${error.message}\n`;
  const message = error instanceof Error ? error.message : String(error);
  const cause = error instanceof Error && error.cause instanceof Error && !tells(message, error.cause) ? ` ${error.cause.message}` : '';
  const lines = [`secateur: ${message}${cause}`];
  for (const { field, description } of error instanceof SecateurError ? error.violations : []) {
    if (!message.includes(description)) lines.push(`  ${field} ${description}`);
  }
  return `${lines.join('\n')}\n`;
}

/** Whether a message has what its cause says, or the code by which that says it: `(ENOENT)`. */
function tells(message: string, cause: Error): boolean {
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : undefined;
  return message.includes(cause.message) || (code !== undefined && message.includes(`(${code})`));
}
