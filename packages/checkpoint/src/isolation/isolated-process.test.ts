import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { expectFailure } from '../../test/support.js';
import { IsolatedProcess, type IsolatedOptions, type RequestLimits } from './isolated-process.js';

const compiled = new URL('../../dist/isolation/isolated-process.js', import.meta.url).href;
const module = new URL('../../test/isolated-child.mjs', import.meta.url);
const limits: RequestLimits = {
  timeoutMs: 30_000,
  onTimeout: () => new SecateurError('INVALID_DATA', 'It took too long.'),
  subject: 'data.parquet',
};

async function withProcess(use: (process: IsolatedProcess) => Promise<void>, options: Partial<IsolatedOptions> = {}): Promise<void> {
  const process = new IsolatedProcess({ module, ...options });
  try {
    await use(process);
  } finally {
    await process.close();
  }
}

test('requests are served one after the other, with what they ask of this process; an error fails one only', () =>
  withProcess(
    async (process) => {
      const [first, refused, last] = await Promise.allSettled([
        process.request({ do: 'ask', question: 1 }, limits),
        process.request({ do: 'refuse' }, limits),
        process.request({ do: 'ask', question: 2 }, limits),
      ]);
      expect([first, last]).toMatchObject([{ value: 10 }, { value: 20 }]);
      expect(refused).toMatchObject({ reason: { reason: 'INVALID_DATA', message: 'It is refused.' } });
    },
    { answer: (question: number) => Promise.resolve(10 * question) },
  ));

test('a hang ends with its time, and the requests that wait with it', () =>
  withProcess(async (process) => {
    const hanging = process.request({ do: 'hang' }, { ...limits, timeoutMs: 1_000 });
    const waiting = process.request({ do: 'refuse' }, limits);
    await expectFailure(() => hanging, 'INVALID_DATA', /too long/);
    await expectFailure(() => waiting, 'INVALID_DATA', /too long/);
  }));

test('memory that runs out ends the request, not this process', () =>
  withProcess(
    (process) => expectFailure(() => process.request({ do: 'fill' }, limits), 'RESOURCE_EXHAUSTED', /^data.parquet: .* more memory/),
    {
      heapMebibytes: 64,
    },
  ));

test('a defect is told as one', () =>
  withProcess(async (process) => {
    const error: unknown = await process.request({ do: 'fail' }, limits).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ reason: 'INTERNAL', cause: { message: expect.stringContaining('a defect') } });
  }));

test('what cannot be answered fails the request', () =>
  withProcess((process) => expectFailure(() => process.request({ do: 'ask' }, limits), 'NOT_FOUND', /gone/), {
    answer: () => Promise.reject(new SecateurError('NOT_FOUND', 'It is gone.')),
  }));

test('a signal ends it', () => {
  const controller = new AbortController();
  return withProcess(
    async (process) => {
      const hanging = process.request({ do: 'hang' }, limits);
      controller.abort();
      await expectFailure(() => hanging, 'CANCELLED', /cancelled/);
    },
    { signal: controller.signal },
  );
});

test('where no more files can be opened, the request fails and no process is killed', async () => {
  const program = `
    import { openSync } from 'node:fs';
    import { IsolatedProcess } from ${JSON.stringify(compiled)};
    try {
      for (;;) openSync('/dev/null');
    } catch {
      const child = new IsolatedProcess({ module: new URL(${JSON.stringify(module.href)}) });
      const error = await child.request({ do: 'hang' }, { timeoutMs: 60_000, subject: '' }).catch((cause) => cause);
      await child.close();
      console.log(error.reason, error.message);
    }
  `;
  const limited = ['-c', 'ulimit -n 60; exec "$@"', 'sh', process.execPath, '--input-type=module', '--eval', program];
  // In a group of its own: a signal to the group of a process that does not exist would end this one too.
  const parent = spawn('sh', limited, { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  const [[output], [code]] = (await Promise.all([once(parent.stdout.setEncoding('utf8'), 'data'), once(parent, 'exit')])) as [
    string[],
    number[],
  ];
  expect(output).toMatch(
    /^RESOURCE_EXHAUSTED Cannot start a process that reads data: too many files are open \(EMFILE\)\. Raise the limit/,
  );
  expect(code).toBe(0);
});

test('a process that hangs does not outlive its parent', async () => {
  const program = `
    import { IsolatedProcess } from ${JSON.stringify(compiled)};
    const child = new IsolatedProcess({ module: new URL(${JSON.stringify(module.href)}), answer: () => undefined });
    await child.request({ do: 'ask' }, { timeoutMs: 60_000, subject: '' });
    void child.request({ do: 'hang' }, { timeoutMs: 60_000, subject: '' });
    console.log(child.child.pid);
  `;
  const parent = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [pid] = (await once(parent.stdout.setEncoding('utf8'), 'data')) as [string];
  parent.kill('SIGKILL');
  // `tail` ends with the process it follows.
  await promisify(execFile)('tail', ['--pid', pid.trim(), '--follow', fileURLToPath(import.meta.url)], { timeout: 30_000 });
});
