import { VERSION } from '@secateur/core';
import { ExitCode } from './output/exit.js';
import { createProgram, runProgram } from './program.js';

// Nobody is left to be told, and no work is to end for that.
process.stderr.on('error', () => undefined);
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader that stops early, such as `head`, is no failure.
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`secateur: The result cannot be written to stdout: ${error.message}.\n`);
  process.exit(ExitCode.FAILED);
});

process.exitCode = await runProgram(createProgram(VERSION), process.argv.slice(2));
