import { SecateurError } from '@secateur/core';

/** Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. */
export const ExitCode = { FAILED: 1, USAGE: 2, INTERRUPTED: 130 } as const;

/** The user stopped the command; `hint` says how to go on. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Tells the user what went wrong and returns the exit code. Stacks are for SECATEUR_DEBUG=1. */
export function reportError(error: unknown): number {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Interrupted) {
    process.stderr.write(`${message}\n`);
    return ExitCode.INTERRUPTED;
  }
  process.stderr.write(`secateur: ${message}\n`);
  if (error instanceof SecateurError && error.violations.length > 1) {
    for (const { field, description } of error.violations) process.stderr.write(`  ${field}: ${description}\n`);
  }
  if (process.env['SECATEUR_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
  return error instanceof SecateurError && error.reason === 'INVALID_REQUEST' ? ExitCode.USAGE : ExitCode.FAILED;
}
