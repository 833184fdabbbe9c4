import { VERSION } from '@secateur/core';
import { createProgram, runProgram } from './program.js';

process.exitCode = await runProgram(createProgram(VERSION), process.argv.slice(2));
