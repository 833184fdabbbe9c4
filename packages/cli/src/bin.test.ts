/** The real command as a process: what scripts rely on. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
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
    ['more nodes than any machine has devices', [...PRUNE, '--nodes', '100000'], '--nodes 100000: It must be a whole number from 1 to 64.'],
    ['more threads than an engine takes', ['node', '--threads', '1000000'], 'It must be a whole number from 0 to 1024.'],
    ['a token of nobody', ['token', '--name', '', '--tenant', 'a b'], '--name must not be empty'],
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

test('a result that cannot be written is a failure, told in one line', () =>
  withFull(async (full) => {
    const child = spawn(process.execPath, [COMMAND, 'token', '--name', 'alice'], { stdio: ['ignore', full, 'pipe'] });
    let stderr = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(stderr).toMatch(/^secateur: The result cannot be written to stdout: ENOSPC.*\n$/);
  }));

test('a log that cannot be written ends no service', () =>
  withFull(async (full) => {
    const port = await freePort();
    const args = [COMMAND, 'node', '--listen', `127.0.0.1:${port}`, '--backend', 'cpu'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', full] });
    const ended = once(child, 'exit');
    try {
      while (child.exitCode === null && !(await answers(port))) await sleep(50);
      child.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  }));

/** A file that is always full. */
async function withFull(work: (descriptor: number) => Promise<void>): Promise<void> {
  const file = await open('/dev/full', 'w');
  try {
    await work(file.fd);
  } finally {
    await file.close();
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

test('all options that cannot be read are told at once', async () => {
  const idle = ['--eval-samples', '3', '--repair-iterations', '4'];
  const { exitCode, stderr } = await run('prune', '--sparsity', '1.5', '--samples', 'x', '--out', 'out', ...idle);
  expect(exitCode).toBe(2);
  const missing = ['--model <dir> is missing', '--calibration <file> is missing'];
  const without = ['--eval-samples does nothing without --eval.', '--repair-iterations does nothing without --repair or --preset.'];
  for (const problem of ['--sparsity 1.5:', '--samples x:', ...missing, ...without]) expect(stderr).toContain(problem);
});

test('options of a measurement that is not asked for are told', async () => {
  const evaluate = ['eval', '--model', '.', '--data', 'file'];
  const ofWindows = await run(...evaluate, '--limit', '5');
  expect(ofWindows).toMatchObject({
    exitCode: 2,
    stderr: expect.stringContaining('--limit does nothing without a --task that has questions'),
  });
  const ofQuestions = await run(...evaluate, '--task', 'piqa', '--samples', '5', '--stride', '3');
  expect(ofQuestions.exitCode).toBe(2);
  for (const flag of ['--samples', '--stride']) expect(ofQuestions.stderr).toContain(`\n  ${flag} does nothing without --task perplexity`);
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
