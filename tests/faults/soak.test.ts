/**
 * Random jobs under random faults, of processes, disks and networks: every job ends with the bytes it would have without them, and nothing is left
 * behind.
 * SECATEUR_SOAK_MINUTES sets for how long faults happen, SECATEUR_SOAK_SEED which ones. With SECATEUR_SOAK_KILLS there are only kills (SIGKILL), so
 * many at random moments, or as many as there is time for.
 */
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { JobState } from '@secateur/proto/job';
import { PruningClient } from '@secateur/client';
import { ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';
import { FailingDisk, preloadProblem } from '../support/preload.js';
import { UnreliableLink } from '../support/unreliable-link.js';

/** Of orchestrators, nodes and the database; 0 for faults of all kinds. */
const KILLS = Number(process.env['SECATEUR_SOAK_KILLS'] ?? 0);
const MINUTES = Number(process.env['SECATEUR_SOAK_MINUTES'] ?? (KILLS > 0 ? 60 : 2));
const SEED = Number(process.env['SECATEUR_SOAK_SEED'] ?? 1);
const LEASE_S = 3;
/** Jobs that wait or run at a time. */
const UNENDED_JOBS = 2;
/** Nodes close sessions that nobody has used for two minutes. */
const SETTLE_MS = 240_000;
/** gRPC gives a silent peer up after 15 seconds, which is waited for in longer runs. */
const LONGEST_SILENCE_MS = MINUTES >= 2 ? 20_000 : 4_000;
/** What heaps and caches may grow by; what leaks grows with every job and fault. */
const MEMORY_MARGIN_MIB = 128;
const MODELS = ['books-llama', 'books-opt'] as const;
type Model = (typeof MODELS)[number];

/** Numbers that are the same for the same seed. */
const draws = fc.sample(fc.nat(), { seed: SEED, numRuns: 100_000 });
let drawn = 0;
function draw(below: number): number {
  return draws[drawn++ % draws.length]! % below;
}

/** A service that is started again, with the same arguments, whenever it is killed. */
class Supervised {
  private constructor(
    private readonly args: readonly string[],
    private readonly environment: NodeJS.ProcessEnv,
    private process: ServiceProcess,
    readonly address: string,
  ) {}

  static async start(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Supervised> {
    const { process: service, address } = await ServiceProcess.start([...args, '--listen', '127.0.0.1:0'], environment);
    return new Supervised([...args, '--listen', address], environment, service, address);
  }

  get pid(): number {
    return this.process.pid;
  }

  async kill(): Promise<void> {
    await this.process.signal('SIGKILL');
    await this.run();
  }

  /** It ends by itself once it has nothing to do. */
  async drain(): Promise<void> {
    await this.process.signal('SIGTERM');
    expect(this.process.exitCode).toBe(0);
    await this.run();
  }

  async freeze(milliseconds: number): Promise<void> {
    const { pid } = this;
    process.kill(pid, 'SIGSTOP');
    await sleep(milliseconds);
    process.kill(pid, 'SIGCONT');
  }

  stop(): Promise<void> {
    return this.process.signal('SIGTERM');
  }

  private async run(): Promise<void> {
    ({ process: this.process } = await ServiceProcess.start(this.args, this.environment));
  }
}

async function openFiles({ pid }: Supervised): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

async function residentMib({ pid }: Supervised): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

test(
  'jobs end with the same bytes whatever is killed, frozen, cancelled or paused, and nothing is left behind',
  async () => {
    await withTemporaryFolder(async (folder) => {
      const outputs = join(folder, 'outputs');
      await mkdir(outputs);
      const disk = preloadProblem === undefined ? new FailingDisk(folder, outputs) : undefined;
      await using database = await PostgresServer.start();
      await using toDatabase = await UnreliableLink.open();
      toDatabase.target = new URL(database.url).host;
      await using toNode = await UnreliableLink.open();
      await using toOtherNode = await UnreliableLink.open();
      const toNodes = [toNode, toOtherNode];
      await using toOrchestrator = await UnreliableLink.open();
      await using toOtherOrchestrator = await UnreliableLink.open();
      const toOrchestrators = [toOrchestrator, toOtherOrchestrator];
      const links = [toDatabase, ...toNodes, ...toOrchestrators];
      const nodeArgs = ['node', '--threads', '1', '--memory', '1GiB', '--backend', 'cpu', '--log-level', 'error'];
      const nodes = [await Supervised.start(nodeArgs), await Supervised.start(nodeArgs)];
      for (const [index, node] of nodes.entries()) toNodes[index]!.target = node.address;
      const state = new URL(database.url);
      state.host = toDatabase.address;
      const serveArgs = [
        ...['serve', '--state', state.href, '--lease', String(LEASE_S), '--log-level', 'error'],
        ...[repositoryRoot, tmpdir()].flatMap((root) => ['--root', root]),
        ...toNodes.flatMap(({ address }) => ['--node', address]),
      ];
      const orchestrators: Supervised[] = [];
      for (const link of toOrchestrators) {
        const orchestrator = await Supervised.start([...serveArgs, '--advertise', link.address], disk?.environment);
        link.target = orchestrator.address;
        orchestrators.push(orchestrator);
      }
      // What leaks shows in those that live on: with faults of all kinds one of each is never ended.
      const mortal = KILLS > 0 ? 2 : 1;
      const services = [...nodes, ...orchestrators];
      const clients = orchestrators.map(({ address }) => PruningClient.connect(address));
      /** Calls that meet a fault are made again. */
      const ask = async <Answer>(call: (client: PruningClient) => Promise<Answer>): Promise<Answer> => {
        for (let attempt = 0; ; ++attempt) {
          try {
            return await call(clients[draw(clients.length)]!);
          } catch (error) {
            const { reason } = error as { reason?: string };
            if (attempt > 100 || !['UNAVAILABLE', 'DEADLINE_EXCEEDED'].includes(reason ?? '')) throw error;
            await sleep(300);
          }
        }
      };
      const specOf = (model: Model, output: string) => ({ ...pruneSpec(model, output), maximumAttempts: 100 });
      const reference = new Map<Model, Record<string, string>>();
      for (const model of MODELS) {
        const output = join(outputs, `reference-${model}`);
        await prune(clients[0]!, `reference-${model}`, pruneSpec(model, output));
        reference.set(model, await hashOutput(output));
      }
      await sleep(1_000);
      const filesBefore = await Promise.all(services.map(openFiles));
      const memoryBefore = await Promise.all(services.map(residentMib));

      const faults: Readonly<Record<string, () => Promise<void>>> = {
        'orchestrator killed': () => orchestrators[draw(mortal)]!.kill(),
        'node killed': () => nodes[draw(mortal)]!.kill(),
        'node drained': () => nodes[draw(mortal)]!.drain(),
        'process frozen for a moment': () => services[draw(4)]!.freeze(300),
        'process frozen for longer than its lease': () => services[draw(4)]!.freeze((LEASE_S + 1) * 1000),
        'database killed': async () => {
          await database.end('SIGKILL');
          await sleep(draw(1_000));
          await database.run();
        },
        'connections cut': () => {
          links[draw(links.length)]!.cut();
          return Promise.resolve();
        },
        'network slow': async () => {
          const link = links[draw(links.length)]!;
          link.change({ delayMs: 20 + draw(200), loss: 0.02 });
          await sleep(draw(4_000));
          link.change({});
        },
        'network silent one way': async () => {
          const link = links[draw(links.length)]!;
          link.silence(draw(2) === 0 ? 'there' : 'back');
          await sleep(draw(LONGEST_SILENCE_MS));
          // What was sent meanwhile arrives, or the connection is gone.
          if (draw(2) === 0) link.cut();
          link.heal();
        },
        ...(disk === undefined
          ? {}
          : {
              'disk full or read-only': async () => {
                disk.failFrom(draw(20), draw(2) === 0 ? 'ENOSPC' : 'EROFS');
                await sleep(draw(3_000));
                disk.mend();
                disk.operations();
              },
            }),
      };
      const kills = Object.entries(faults).filter(([name]) => name.endsWith('killed'));
      const choices = KILLS > 0 ? kills : Object.entries(faults);
      let upcoming: typeof choices = [];
      let killed = 0;
      let failedByDisk = 0;
      /** Goes on with a job that a disk has stopped; throws where anything else has. */
      const mend = async ({ id }: { readonly id: string }): Promise<void> => {
        const { state, error } = await ask((client) => client.getJob(id));
        if (state !== JobState.FAILED) return;
        if (!/\((ENOSPC|EROFS)\)/.test(error?.message ?? '')) throw new Error(`Job ${id} failed: ${error?.message ?? ''}`);
        ++failedByDisk;
        await ask((client) => client.resumeJob(id));
      };
      let faultsSoFar = 0;
      const happened: Record<string, number> = {};
      const made: { id: string; model: Model; output: string }[] = [];
      const states = async (): Promise<JobState[]> =>
        Promise.all(made.map(async ({ id }) => (await ask((client) => client.getJob(id))).state));
      const until = performance.now() + MINUTES * 60_000;
      while (performance.now() < until && (KILLS === 0 || killed < KILLS)) {
        const present = await states();
        const unended = made.filter((_, index) => present[index] !== JobState.SUCCEEDED);
        if (unended.length < UNENDED_JOBS) {
          const model = MODELS[draw(MODELS.length)]!;
          const job = { id: `soak-${SEED}-${made.length}`, model, output: join(outputs, `pruned-${made.length}`) };
          made.push(job);
          await ask((client) => client.createJob({ jobId: job.id, spec: specOf(model, job.output) }));
        }
        await sleep(draw(1_500));
        // Each kind once before any comes again, so that short runs see as many as they can.
        if (upcoming.length === 0) upcoming = [...choices];
        const [[name, fault]] = upcoming.splice(draw(upcoming.length), 1) as [(typeof choices)[number]];
        happened[name] = (happened[name] ?? 0) + 1;
        await fault();
        for (const job of unended) await mend(job);
        if (name.endsWith('killed')) ++killed;
        if (++faultsSoFar % 20 === 0) process.stderr.write(`${made.length} jobs, faults: ${JSON.stringify(happened)}\n`);
        if (KILLS > 0) continue;
        const asked = unended[draw(unended.length + 3)];
        if (asked !== undefined) {
          const wish = draw(2) === 0 ? 'paused' : 'cancelled';
          happened[`job ${wish}`] = (happened[`job ${wish}`] ?? 0) + 1;
          // It may have ended meanwhile.
          await ask((client) => (wish === 'paused' ? client.pauseJob(asked.id) : client.cancelJob(asked.id))).catch(() => undefined);
          await sleep(draw(500));
          await ask((client) => client.resumeJob(asked.id)).catch(() => undefined);
        }
      }

      await eventually(
        async () => {
          for (const job of made) {
            await mend(job);
            const { id } = job;
            const { state } = await ask((client) => client.getJob(id));
            // A wish that came while nobody held the job is heeded by whoever takes it next.
            if (state === JobState.PAUSED || state === JobState.CANCELLED) await ask((client) => client.resumeJob(id));
          }
          return (await states()).every((state) => state === JobState.SUCCEEDED);
        },
        'all jobs have succeeded',
        SETTLE_MS,
      );
      for (const { model, output } of made) expect(await hashOutput(output)).toEqual(reference.get(model));

      // Nothing unfinished is left, on the disk, on the nodes or in the processes.
      expect((await readdir(outputs)).filter((name) => name.endsWith('.partial'))).toEqual([]);
      await eventually(
        async () => (await ask((client) => client.listNodes())).every(({ healthy, description }) => healthy && description?.sessions === 0),
        'the nodes have no sessions',
        SETTLE_MS,
      );
      await sleep(1_000);
      const filesAfter = await Promise.all(services.map(openFiles));
      const memoryAfter = await Promise.all(services.map(residentMib));
      const change = (before: readonly number[], after: readonly number[]): string =>
        before.map((value, index) => `${value.toFixed()} → ${after[index]!.toFixed()}`).join(', ');
      process.stderr.write(
        [
          `${made.length} jobs with the same bytes, ${killed} kills, ${failedByDisk} times stopped by the disk, faults: ${JSON.stringify(happened)}`,
          `open files of each service: ${change(filesBefore, filesAfter)}`,
          `resident MiB of each service: ${change(memoryBefore, memoryAfter)}\n`,
        ].join('\n'),
      );
      // Connections come and go; what leaks grows with every job and fault.
      for (const [index, files] of filesAfter.entries()) expect(files).toBeLessThan(filesBefore[index]! + 30);
      for (const [index, mib] of memoryAfter.entries()) expect(mib).toBeLessThan(memoryBefore[index]! + MEMORY_MARGIN_MIB);
      for (const client of clients) client.close();
      await Promise.all(services.map((service) => service.stop()));
    });
  },
  MINUTES * 60_000 + 2 * SETTLE_MS,
);
