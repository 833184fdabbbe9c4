/** `secateur prune` and `secateur eval` as a user runs them, with their own local cluster. */
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '@secateur/checkpoint';
import { runCommand } from '../support/command.js';
import { eventually } from '../support/jobs.js';
import { OtlpReceiver } from '../support/otlp-receiver.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, withTemporaryFolder, type ModelName } from '../support/paths.js';

function pruneArguments(model: ModelName, output: string): string[] {
  const calibration = fixturePath('calibration', `${model}-calibration.safetensors`);
  return [
    'prune',
    '--model',
    modelPath(model),
    '--out',
    output,
    '--sparsity',
    '0.7',
    '--calibration',
    calibration,
    '--samples',
    '32',
    '--nodes',
    '2',
  ];
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Processes of this system whose command line mentions a text. */
async function processesMentioning(text: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (commandLine.includes(text)) found.push(pid);
  }
  return found;
}

describe('secateur prune', () => {
  test('leaves a whole checkpoint whose kept weights are the input bit for bit', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      const { exitCode, stdout } = await runCommand([...pruneArguments('books-opt', output), '--json']);
      expect(exitCode).toBe(0);
      const report = JSON.parse(stdout) as { sparsity: { actual: number }; projections: { name: string; rows: number; columns: number }[] };
      expect(await readFile(join(output, 'secateur.json'), 'utf8').then(JSON.parse)).toEqual(report);

      const [input, pruned, masks, rows] = await Promise.all([
        openCheckpoint(modelPath('books-opt')),
        openCheckpoint(output),
        readFile(join(output, 'masks.safetensors')),
        readFile(join(output, 'row_sparsities.safetensors')),
      ]);
      expect(masks.byteLength).toBeGreaterThan(rows.byteLength);
      expect([...pruned.tensors.keys()]).toEqual([...input.tensors.keys()]);
      const projections = new Set(report.projections.map(({ name }) => `${name}.weight`));
      let dropped = 0;
      let weights = 0;
      for (const [name, entry] of input.tensors) {
        expect(pruned.tensors.get(name)).toEqual({ ...entry, file: pruned.tensors.get(name)?.file });
        const [before, after] = await Promise.all([input.readTensor(name), pruned.readTensor(name)]);
        if (!projections.has(name)) {
          expect(after.equals(before)).toBe(true);
          continue;
        }
        for (let offset = 0; offset < before.byteLength; offset += 2) {
          weights += 1;
          if (after.readUInt16LE(offset) === before.readUInt16LE(offset)) continue;
          if (after.readUInt16LE(offset) !== 0) throw new Error(`${name}: byte ${offset} was changed to something other than +0`);
          dropped += 1;
        }
      }
      // Weights that were +0 already are dropped without a visible change.
      expect(dropped / weights).toBeGreaterThan(report.sparsity.actual - 0.001);
      expect(dropped / weights).toBeLessThanOrEqual(report.sparsity.actual);
      await Promise.all([input.close(), pruned.close()]);
    }));

  test('has nodes that read the blocks from their files, and pull none', () =>
    withTemporaryFolder(async (folder) => {
      await using receiver = await OtlpReceiver.start();
      const { exitCode } = await runCommand(pruneArguments('books-opt', join(folder, 'pruned')), undefined, receiver.environment);
      expect(exitCode).toBe(0);
      const received = receiver.spans.filter(({ name, attributes }) => name === 'secateur.fetch' && 'secateur.shard.id' in attributes);
      const loads = received.filter(({ attributes }) => !String(attributes['secateur.shard.id']).endsWith('/masks'));
      expect(new Set(loads.map(({ attributes }) => attributes['secateur.shard.id']))).toEqual(
        new Set(['embedding', 'block/0', 'block/1', 'block/2', 'block/3']),
      );
      const pulls = receiver.spans.filter(({ attributes }) => attributes['rpc.method'] === 'secateur.v1.TensorService/Fetch');
      const pulled = new Set(pulls.map(({ parentSpanId }) => parentSpanId));
      expect(loads.filter(({ spanId }) => pulled.has(spanId))).toEqual([]);
      // Statistics and masks come from the orchestrator all the same.
      expect(pulls.length).toBeGreaterThan(0);
    }));

  test('stopped by Ctrl-C leaves nothing under the final name, no process, and resumes', () =>
    withTemporaryFolder(async (folder) => {
      const whole = join(folder, 'whole');
      expect((await runCommand(pruneArguments('books-qwen2', whole))).exitCode).toBe(0);

      const output = join(folder, 'stopped');
      const journal = join(`${output}.partial`, 'journal.jsonl');
      let interrupted = false;
      const stopped = await runCommand(pruneArguments('books-qwen2', output), (_soFar, signal) => {
        if (interrupted) return;
        void readFile(journal, 'utf8').then(
          (text) => {
            if (interrupted || text.split('\n').length < 3) return;
            interrupted = true;
            signal('SIGINT');
          },
          () => undefined,
        );
      });
      expect(stopped.exitCode).toBe(130);
      expect(stopped.stderr).toMatch(/resume|again/i);
      expect(await exists(output)).toBe(false);
      await eventually(async () => (await processesMentioning(folder)).length === 0, 'all processes of the stopped command are gone');

      const resumed = await runCommand([...pruneArguments('books-qwen2', output), '--json']);
      expect(resumed.exitCode).toBe(0);
      expect(await exists(`${output}.partial`)).toBe(false);
      expect(await hashOutput(output)).toEqual(await hashOutput(whole));
    }));

  test('refuses wrong usage with exit code 2 before anything is started or written', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      const { exitCode, stderr, stdout } = await runCommand([...pruneArguments('books-opt', output), '--sparsity', '1.5']);
      expect(exitCode).toBe(2);
      expect(stderr).toMatch(/sparsity/);
      expect(stdout).toBe('');
      expect(await readdir(folder)).toEqual([]);
    }));

  test('never overwrites an output folder', () =>
    withTemporaryFolder(async (folder) => {
      const { exitCode, stderr } = await runCommand(pruneArguments('books-opt', folder));
      expect(exitCode).not.toBe(0);
      expect(stderr).toContain(folder);
    }));
});

describe('secateur eval', () => {
  test('prints one JSON document with the perplexity', async () => {
    const data = fixturePath('calibration', 'books-opt-eval.safetensors');
    const args = [
      'eval',
      '--model',
      modelPath('books-opt'),
      '--task',
      'perplexity',
      '--data',
      data,
      '--samples',
      '16',
      '--nodes',
      '2',
      '--json',
    ];
    const { exitCode, stdout } = await runCommand(args);
    expect(exitCode).toBe(0);
    expect((JSON.parse(stdout) as { perplexity: number }).perplexity).toBeGreaterThan(50);
  });
});
