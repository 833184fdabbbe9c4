/** A node in a network of its own, on the way to which the kernel drops packets: the same bytes, or the node is given up. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { TokenSource, type JobEvent } from '@secateur/proto/job';
import type { PruneReport } from '@secateur/proto/pruning_service';
import { ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { namespaceProblem, NetworkNamespace, type Way } from '../support/network-namespace.js';
import { hashOutput } from '../support/output-files.js';
import { commandPath, fixturePath, repositoryRoot, temporaryFolder, type TemporaryFolder } from '../support/paths.js';

const calibration = TokenSource.fromPartial({
  path: fixturePath('calibration', 'books-opt-calibration.safetensors'),
  samples: 48,
  sequenceLength: 256,
});
const NODE = ['--threads', '1', '--memory', '512MiB', '--backend', 'cpu'];
/** gRPC asks a silent peer after ten seconds, and gives it up five later. */
const NOTICED_WITHIN_MS = 40_000;

let folder: TemporaryFolder;
let network: NetworkNamespace;
let services: readonly { readonly process: ServiceProcess; readonly address: string }[];
let client: PruningClient;
let reference: Record<string, string>;
let jobs = 0;

const suffix = namespaceProblem === undefined ? '' : ` (skipped: ${namespaceProblem})`;

(namespaceProblem === undefined ? describe : describe.skip)(`a node in another network${suffix}`, () => {
  beforeAll(async () => {
    folder = await temporaryFolder();
    network = await NetworkNamespace.open();
    const listening = (address: string): string[] => ['--listen', `${address}:0`, '--insecure'];
    const near = await ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--name', 'near', ...NODE]);
    // Nobody else is in that network.
    const far = await ServiceProcess.start(
      ['node', ...listening(network.inside), '--name', 'far', ...NODE],
      {},
      commandPath,
      network.launcher,
    );
    const addresses = [near, far].flatMap(({ address }) => ['--node', address]);
    const roots = [repositoryRoot, tmpdir()].flatMap((root) => ['--root', root]);
    const service = await ServiceProcess.start(['serve', ...listening(network.outside), '--state', 'memory', ...addresses, ...roots]);
    services = [service, near, far];
    client = PruningClient.connect(service.address);
    ({ hashes: reference } = await pruneWhile(() => undefined));
  });
  afterAll(async () => {
    client.close();
    await network.heal();
    await Promise.all(services.map(({ process: service }) => service.signal('SIGTERM')));
    await network[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  /** `happen` is called once, when the second block is begun. */
  async function pruneWhile(happen: () => unknown): Promise<{ hashes: Record<string, string>; lost: readonly boolean[] }> {
    const id = `job-${++jobs}`;
    const output = join(folder.path, id);
    let happening: unknown;
    const onEvent = ({ event }: JobEvent): void => {
      if (happening === undefined && event?.$case === 'progress' && event.value.layer === 1) happening = happen() ?? true;
    };
    const report = await prune(client, id, pruneSpec('books-opt', output, { calibration }), onEvent);
    await happening;
    expect(happening).toBeDefined();
    return { hashes: await hashOutput(output), lost: lostOf(report) };
  }

  const lostOf = ({ nodes }: PruneReport): readonly boolean[] => nodes.map(({ lost }) => lost !== '');

  test('one packet in a hundred is lost each way', async () => {
    await network.loseOneIn(100);
    expect(await pruneWhile(() => undefined)).toEqual({ hashes: reference, lost: [false, false] });
    expect(await network.dropped()).toBeGreaterThan(0);
    await network.heal();
  });

  test.each<Way>(['there', 'back'])('nothing comes through %s for shorter than is waited', async (way) => {
    const outcome = await pruneWhile(async () => {
      await network.silence(way);
      await sleep(1_500);
      expect(await network.dropped()).toBeGreaterThan(0);
      await network.heal();
    });
    expect(outcome).toEqual({ hashes: reference, lost: [false, false] });
  });

  test.each<Way>(['there', 'back'])('nothing comes through %s any more: the node is given up', async (way) => {
    const began = performance.now();
    expect(await pruneWhile(() => network.silence(way))).toEqual({ hashes: reference, lost: [false, true] });
    expect(performance.now() - began).toBeLessThan(NOTICED_WITHIN_MS);
    await network.heal();
    const areHealthy = async (): Promise<boolean> => (await client.listNodes()).every(({ healthy }) => healthy);
    await eventually(areHealthy, 'the node is used again');
  });
});
