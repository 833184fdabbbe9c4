/** The real command as a process: what scripts rely on. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, expect, jest, test } from '@jest/globals';
import { COMMAND, run } from '../test/run-command.js';

// Processes start slowly on a busy machine.
jest.setTimeout(60_000);

const PRUNE = ['prune', '--model', 'no-model', '--out', 'no-folder/out', '--sparsity', '0.7', '--calibration', 'no-text.txt'];

describe('exit codes', () => {
  test.each([
    ['an unknown command', ['frobnicate'], 'unknown command'],
    ['no command', [], 'Usage: secateur'],
    ['an unknown option', [...PRUNE, '--fast'], "unknown option '--fast'"],
    ['two ways to propagate', [...PRUNE, '--input-recalc', '--propagation', 'staged'], 'cannot be used with'],
    ['options that exclude each other', [...PRUNE, '--endpoint', '127.0.0.1:1', '--nodes', '2'], 'cannot be used with'],
    ['a value known elsewhere', [...PRUNE, '--score', 'obs'], '--score obs: It must be one of wanda, magnitude, wanda-variant, sparsegpt.'],
    ['a missing argument', ['trace', '--out', 'trace.json'], "missing required argument 'job'"],
  ])('%s is wrong usage', async (_what, args, message) => {
    const { exitCode, stdout, stderr } = await run(...args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
    expect(stderr).toContain(message);
  });

  test('a file that cannot be read is a failure, told in one line', async () => {
    const { exitCode, stdout, stderr } = await run('inspect', 'no-model');
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: '' });
    expect(stderr).toMatch(/^secateur: .*no-model.*\n$/);
  });

  test('help and version are results', async () => {
    expect(await run('--help')).toMatchObject({ exitCode: 0, stderr: '', stdout: expect.stringContaining('Usage: secateur') });
    expect(await run('--version')).toMatchObject({ exitCode: 0, stderr: '', stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });
});

test('all options that cannot be read are told at once', async () => {
  const { exitCode, stderr } = await run('prune', '--sparsity', '1.5', '--samples', 'x', '--out', 'out');
  expect(exitCode).toBe(2);
  for (const flag of ['--sparsity 1.5:', '--samples x:', '--model <dir> is missing', '--calibration <file> is missing']) {
    expect(stderr).toContain(flag);
  }
});

test('all options that make no sense are told at once, by the names of their flags', async () => {
  const { exitCode, stderr } = await run(...PRUNE, '--seq-len', '1', '--job-id', 'a b', '--trace-out', 'no-folder/trace.json');
  expect(exitCode).toBe(2);
  for (const flag of ['--seq-len must', '--job-id must', '--model /', '--calibration /', '--out /', '--trace-out /']) {
    expect(stderr).toContain(`\n  ${flag}`);
  }
});

test('a root that is not there is told before the service starts', async () => {
  const { exitCode, stderr } = await run('serve', '--listen', '127.0.0.1:0', '--node', '127.0.0.1:1', '--root', 'no-folder');
  expect(exitCode).toBe(2);
  expect(stderr).toMatch(/\n {2}--root \/.*no-folder does not exist/);
});

test('a port that is taken is told in one line, by nobody but us', async () => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    const { exitCode, stderr } = await run('node', '--listen', `127.0.0.1:${port}`, '--backend', 'cpu');
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(
      /^secateur: Cannot listen at .* another process listens there \(EADDRINUSE\)\. Stop it, or choose another port\.\n$/,
    );
  } finally {
    server.close();
  }
});

test('Ctrl-C ends the wait for a service that does not answer', async () => {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const child = execFile(process.execPath, [COMMAND, 'eval', '--model', 'm', '--data', 'd', '--endpoint', `127.0.0.1:${port}`]);
  try {
    const [connection] = (await once(server, 'connection')) as [Socket];
    connection.on('error', () => undefined);
    const startedMs = performance.now();
    child.kill('SIGINT');
    const [exitCode] = (await once(child, 'exit')) as [number | null];
    expect(exitCode).toBe(130);
    expect(performance.now() - startedMs).toBeLessThan(5_000);
    connection.destroy();
  } finally {
    child.kill('SIGKILL');
    server.close();
  }
});
