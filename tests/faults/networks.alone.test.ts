/** Networks between orchestrators, nodes and the database that delay, lose and cut, one way too, for shorter and longer than is waited: the same bytes. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, type JobEvent, type JobSpec } from '@secateur/proto/job';
import type { PruneReport } from '@secateur/proto/pruning_service';
import { ServiceProcess } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { repositoryRoot, temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';
import { writeTinyJob } from '../support/tiny-job.js';
import { UnreliableLink, type LinkOptions } from '../support/unreliable-link.js';

const LEASE_S = 3;
/** gRPC asks a silent peer after ten seconds, and gives it up five later. */
const NOTICED_WITHIN_MS = 25_000;

let folder: TemporaryFolder;
let specFor: (output: string) => JobSpec;
let nodes: readonly { readonly process: ServiceProcess; readonly address: string }[];
let reference: Record<string, string>;
let outputs = 0;

const startNode = (name: string) =>
  ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--name', name, '--threads', '1', '--memory', '256MiB', '--backend', 'cpu']);
const startService = (...args: readonly string[]) =>
  ServiceProcess.start(['serve', '--listen', '127.0.0.1:0', '--root', repositoryRoot, '--root', tmpdir(), ...args]);

beforeAll(async () => {
  folder = await temporaryFolder();
  specFor = await writeTinyJob(folder.path, { allocation: Allocation.UNIFORM });
  nodes = await Promise.all([startNode('near'), startNode('far')]);
  const output = join(folder.path, 'reference');
  await using service = await serving([nodes[0]!.address]);
  await prune(service.client, 'reference', specFor(output));
  reference = await hashOutput(output);
});
afterAll(async () => {
  await Promise.all(nodes.map(({ process: service }) => service.signal('SIGTERM')));
  await folder[Symbol.asyncDispose]();
});

interface Serving extends AsyncDisposable {
  readonly client: PruningClient;
  readonly address: string;
}

async function serving(addresses: readonly string[], ...args: readonly string[]): Promise<Serving> {
  const { process: service, address } = await startService('--state', 'memory', ...addresses.flatMap((node) => ['--node', node]), ...args);
  const client = PruningClient.connect(address);
  return {
    client,
    address,
    [Symbol.asyncDispose]: async () => {
      client.close();
      await service.signal('SIGTERM');
    },
  };
}

/** Prunes with a near node and one behind links, one to it and one from it, and compares the bytes. `happen` is called once, when the second block is begun. */
async function pruneOver(
  options: LinkOptions,
  happen: (toNode: UnreliableLink, toOrchestrator: UnreliableLink) => void = () => undefined,
): Promise<PruneReport> {
  await using toNode = await UnreliableLink.open(options);
  await using toOrchestrator = await UnreliableLink.open(options);
  toNode.target = nodes[1]!.address;
  await using service = await serving([nodes[0]!.address, toNode.address], '--advertise', toOrchestrator.address);
  toOrchestrator.target = service.address;
  const output = join(folder.path, `pruned-${++outputs}`);
  let happened = false;
  const onEvent = ({ event }: JobEvent): void => {
    if (happened || event?.$case !== 'progress' || event.value.layer !== 1) return;
    happened = true;
    happen(toNode, toOrchestrator);
  };
  const report = await prune(service.client, 'job', specFor(output), onEvent);
  expect(happened).toBe(true);
  expect(await hashOutput(output)).toEqual(reference);
  return report;
}

const lost = ({ nodes: used }: PruneReport): readonly boolean[] => used.map(({ lost: reason }) => reason !== '');

describe('between an orchestrator and its nodes', () => {
  test('a round trip of 200 ms and one packet in a hundred lost', async () => {
    expect(lost(await pruneOver({ delayMs: 100, loss: 0.01 }))).toEqual([false, false]);
  });

  test('cut connections are made again', async () => {
    await pruneOver({}, (...links) => {
      for (const link of links) link.cut();
    });
  });

  test.each(['there', 'back'] as const)('silent one way (%s) for shorter than is waited', async (direction) => {
    const report = await pruneOver({}, (toNode) => {
      toNode.silence(direction);
      setTimeout(() => toNode.heal(), 1_500);
    });
    expect(lost(report)).toEqual([false, false]);
  });

  test('silent one way for longer: the node is given up', async () => {
    const began = performance.now();
    const report = await pruneOver({}, (toNode) => toNode.silence('back'));
    expect(lost(report)).toEqual([false, true]);
    expect(performance.now() - began).toBeLessThan(NOTICED_WITHIN_MS);
  });
});

test.each([
  ['shorter', 1_000, 1],
  ['longer', (LEASE_S + 2) * 1000, 2],
])('an orchestrator hears nothing of the database for %s than its lease', async (_, milliseconds, attempts) => {
  await using database = await PostgresServer.start();
  await using first = await UnreliableLink.open();
  await using second = await UnreliableLink.open();
  const links = [first, second];
  const services = [];
  for (const link of links) {
    const url = new URL(database.url);
    link.target = url.host;
    url.host = link.address;
    services.push(await startService('--state', url.href, '--lease', String(LEASE_S), '--node', nodes[0]!.address));
  }
  const clients = services.map(({ address }) => PruningClient.connect(address));
  try {
    const output = join(folder.path, `pruned-${++outputs}`);
    await clients[0]!.createJob({ jobId: 'job', spec: specFor(output) });
    let orchestrator = '';
    for await (const { event } of clients[0]!.watchJob('job')) {
      if (event?.$case !== 'attemptStarted') continue;
      ({ orchestrator } = event.value);
      break;
    }
    const runner = services.findIndex(({ process: { pid } }) => orchestrator.includes(`-${pid}-`));
    links[runner]!.silence('back');
    await sleep(milliseconds);
    links[runner]!.heal();
    const job = await clients[1 - runner]!.waitForJob('job');
    expect(job.state).toBe(JobState.SUCCEEDED);
    expect(job.attempt).toBe(attempts);
    expect(await hashOutput(output)).toEqual(reference);
  } finally {
    for (const client of clients) client.close();
    await Promise.all(services.map(({ process: service }) => service.signal('SIGTERM')));
  }
});
