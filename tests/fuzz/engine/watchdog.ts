import { Worker } from 'node:worker_threads';

/** Runs on a thread of its own, since a hang holds up this one. Its clock counts how often it looked at the same input. */
const PROGRAM = `
  const { workerData: { progress, limitMs, everyMs } } = require('node:worker_threads');
  let [last, looks] = [-1, 0];
  setInterval(() => {
    const now = Atomics.load(progress, 0);
    looks = now === last ? looks + 1 : 0;
    last = now;
    if (now % 2 === 0 || looks * everyMs < limitMs) return;
    require('node:fs').writeSync(2, 'an input takes more than ' + limitMs + ' ms\\n');
    process.kill(process.pid, 'SIGKILL');
  }, everyMs);
`;
const EVERY_MS = 250;

/** Kills this process when one input takes too long. */
export class Watchdog {
  private readonly progress = new Int32Array(new SharedArrayBuffer(4));
  private readonly worker: Worker;

  constructor(limitMs: number) {
    this.worker = new Worker(PROGRAM, { eval: true, execArgv: [], workerData: { progress: this.progress, limitMs, everyMs: EVERY_MS } });
    this.worker.unref();
  }

  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    Atomics.add(this.progress, 0, 1);
    try {
      return await work();
    } finally {
      Atomics.add(this.progress, 0, 1);
    }
  }
}
