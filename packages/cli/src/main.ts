import { VERSION } from '@secateur/core';
import { createProgram, runProgram } from './program.js';

// A reader that stops early, such as `head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await runProgram(createProgram(VERSION), process.argv.slice(2));
