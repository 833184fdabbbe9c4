// A long queue and many watchers on one orchestrator: how long callers wait for an answer, and how soon watchers hear of what happens.
import { spawn } from 'node:child_process';
import { setMaxListeners } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PruningClient } from '@secateur/client';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { markdownTable } from './table.mjs';

const JOBS = 10_000;
const WATCHERS = 1_000;
const CALLERS = 16;
const CALLS = 500;

/** @param {readonly string[]} args @returns {Promise<{ address: string, pid: number, stop: () => Promise<void> }>} */
async function startOrchestrator(args) {
  const command = join(workspaceRoot, 'packages/cli/bin/secateur.js');
  const child = spawn(process.execPath, [command, 'serve', '--listen', '127.0.0.1:0', '--log-level', 'error', ...args], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const address = await new Promise((resolve, reject) => {
    child.once('message', (/** @type {{ address: string }} */ message) => resolve(message.address));
    child.once('exit', (code) => reject(new Error(`secateur serve ended with ${String(code)}.`)));
  });
  return {
    address,
    pid: child.pid ?? 0,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** Milliseconds of each of many calls, a few at a time. @param {number} count @param {(index: number) => Promise<unknown>} call */
async function timeCalls(count, call) {
  /** @type {number[]} */
  const times = [];
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const index = next++;
      const started = performance.now();
      await call(index);
      times.push(performance.now() - started);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return times.sort((left, right) => left - right);
}

/** @param {readonly number[]} sorted @param {number} share */
const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
/** @param {readonly number[]} sorted */
const describe = (sorted) => `${quantile(sorted, 0.5).toFixed(1)} / ${quantile(sorted, 0.99).toFixed(1)}`;

/** @param {number} pid */
async function residentMiB(pid) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const kilobytes = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN);
  return (kilobytes / 1024).toFixed(0);
}

/** @param {string} name @param {string} state */
async function measure(name, state) {
  // Nothing listens on port 1, so that no job gets beyond waiting for a node.
  const nodes = ['--node', '127.0.0.1:1', '--root', workspaceRoot];
  const orchestrator = await startOrchestrator(['--state', state, ...nodes]);
  const client = PruningClient.connect(orchestrator.address);
  const prefix = `queue-${Date.now()}`;
  try {
    const model = join(workspaceRoot, 'examples/models/books-qwen2');
    const data = { path: join(workspaceRoot, 'tests/fixtures/calibration/books-qwen2-eval.safetensors') };
    /** @param {number} index */
    const create = (index) =>
      client.createJob({ jobId: `${prefix}-${index}`, spec: { kind: { $case: 'evaluate', value: { model, data } } } });
    const started = performance.now();
    const created = await timeCalls(JOBS, create);
    const perSecond = JOBS / ((performance.now() - started) / 1000);
    const read = await timeCalls(CALLS, (index) => client.getJob(`${prefix}-${(index * 7919) % JOBS}`));
    const listed = await timeCalls(CALLS / 10, async () => {
      for await (const job of client.listJobs()) if (job.id !== '') break;
    });

    const watched = `${prefix}-${JOBS - 1}`;
    let heard = 0;
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    let allHeard = () => {};
    const watchers = Array.from({ length: WATCHERS }, async () => {
      try {
        const events = client.watchJob(watched, { signal: stop.signal });
        while ((await events.next()).done !== true) {
          heard += 1;
          if (heard % WATCHERS === 0) allHeard();
        }
      } catch (error) {
        if (!stop.signal.aborted) throw error;
      }
    });
    /** @type {number[]} */
    const heardAfter = [];
    for (let round = 0; round < 10; round++) {
      const before = performance.now();
      const all = /** @type {Promise<void>} */ (
        new Promise((resolve) => {
          allHeard = resolve;
        })
      );
      await (round % 2 === 0 ? client.pauseJob(watched) : client.resumeJob(watched));
      await all;
      heardAfter.push(performance.now() - before);
    }
    heardAfter.sort((left, right) => left - right);
    const readBesideWatchers = await timeCalls(CALLS, (index) => client.getJob(`${prefix}-${(index * 7919) % JOBS}`));
    const memory = await residentMiB(orchestrator.pid);
    stop.abort();
    await Promise.all(watchers);
    return [
      name,
      perSecond.toFixed(0),
      describe(created),
      describe(read),
      describe(listed),
      describe(readBesideWatchers),
      describe(heardAfter),
      memory,
    ];
  } finally {
    client.close();
    await orchestrator.stop();
  }
}

/** @returns {Promise<Record<string, string>>} */
export async function benchQueue() {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-queue-'));
  try {
    const rows = [await measure('memory', 'memory'), await measure('a folder', folder)];
    const url = process.env['DATABASE_URL'];
    if (url !== undefined) rows.push(await measure('PostgreSQL', url));
    const head = [
      `${JOBS} jobs in`,
      'created/s',
      'create, ms',
      'get, ms',
      'list 100, ms',
      `get beside ${WATCHERS} watchers, ms`,
      `an event reaches ${WATCHERS} watchers, ms`,
      'resident, MiB',
    ];
    return { queue: markdownTable(head, rows) };
  } finally {
    await rm(folder, { recursive: true });
  }
}
