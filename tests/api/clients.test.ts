/** Clients that are not ours, and the examples for those who write their own. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { findExecutable } from '../../scripts/lib/find-executable.mjs';
import { findGrpcProblem } from '../../scripts/lib/system-packages.mjs';
import { Cluster } from '../support/cluster.js';
import { fixturePath, modelPath, repositoryRoot, withTemporaryFolder } from '../support/paths.js';
import { ReflectionClient } from '../support/reflection-client.js';

const CPP_BUILD_FOLDER = join(repositoryRoot, 'out/cpp-client');
const CALIBRATION = fixturePath('calibration', 'books-opt-calibration.safetensors');

const missing = {
  curl: findExecutable('curl') === undefined ? 'curl was not found' : undefined,
  cpp: await findGrpcProblem(),
};

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1, http: true });
});
afterAll(() => cluster[Symbol.asyncDispose]());

/** Runs a program to its good end and returns what it wrote. */
function run(program: string, args: readonly string[]): Promise<string> {
  const { NODE_OPTIONS: _jestOnly, ...environment } = process.env;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${program} ${args.join(' ')} ended with ${code}:\n${output}`));
    });
  });
}

/** Runs an example to prune a model of its own and returns what it wrote. */
function prune(program: string, args: readonly string[], jobId: string): Promise<string> {
  return withTemporaryFolder((folder) => run(program, [...args, jobId, modelPath('books-opt'), CALIBRATION, join(folder, 'pruned')]));
}

/** A test whose name says why it is skipped where something is missing. */
function testUnless(problem: string | undefined, name: string, work: () => Promise<void>): void {
  if (problem === undefined) test(name, work);
  else test.skip(`${name} (skipped: ${problem})`, work);
}

describe('examples/clients', () => {
  test('node', async () => {
    const output = await prune(process.execPath, [join(repositoryRoot, 'examples/clients/node/prune.mjs'), cluster.address], 'by-node');
    expect(output).toMatch(/layer 3 is pruned\n(.*\n)*sparsity 0\.69\d*\n(.*\n)*job by-node\n/);
  });

  testUnless(missing.curl, 'curl', async () => {
    const script = join(repositoryRoot, 'examples/clients/curl/prune.sh');
    const output = await prune('bash', [script, `http://${cluster.httpAddress}`], 'by-curl');
    expect(output).toMatch(/"id":"by-curl"(.*\n)*.*JOB_STATE_SUCCEEDED(.*\n)*.*"actualSparsity":0\.69/);
  });

  testUnless(missing.cpp, 'cpp', async () => {
    await run('cmake', ['-S', join(repositoryRoot, 'examples/clients/cpp'), '-B', CPP_BUILD_FOLDER]);
    await run('cmake', ['--build', CPP_BUILD_FOLDER, '--parallel', '2']);
    const output = await prune(join(CPP_BUILD_FOLDER, 'secateur_client'), [cluster.address], 'by-cpp');
    expect(output).toMatch(/layer 3 is pruned\n(.*\n)*sparsity 0\.69\d*\n(.*\n)*job by-cpp\n/);
    const again = run(join(CPP_BUILD_FOLDER, 'secateur_client'), [
      cluster.address,
      'by-cpp',
      modelPath('books-opt'),
      CALIBRATION,
      '/elsewhere',
    ]);
    await expect(again).rejects.toThrow(/CreateJob failed with code \d+: /);
  });
});

test('a client that asks the server what it offers can call it', async () => {
  const client = await ReflectionClient.connect(cluster.address, 'secateur.v1.PruningService');
  try {
    expect(await client.call('ListNodes', {})).toMatchObject({ nodes: [{ healthy: true, description: { engine: { backend: 'cpu' } } }] });
    await expect(client.call('GetJob', { job_id: 'none' })).rejects.toMatchObject({ code: 5, details: 'There is no job none.' });
    const spec = { evaluate: { model: modelPath('books-opt'), data: { path: CALIBRATION, samples: 8 } } };
    expect(await client.call('CreateJob', { job_id: 'by-reflection', spec })).toMatchObject({ job: { id: 'by-reflection' } });
    const states: string[] = [];
    for await (const message of client.stream('WatchJob', { job_id: 'by-reflection' })) {
      const { event } = message as { event: { state_changed?: { state: string } } | null };
      if (event?.state_changed) states.push(event.state_changed.state);
    }
    expect(states.at(-1)).toBe('JOB_STATE_SUCCEEDED');
    expect(await client.call('GetReport', { job_id: 'by-reflection' })).toMatchObject({ evaluate: { windows: 8 } });
  } finally {
    client.close();
  }
});
