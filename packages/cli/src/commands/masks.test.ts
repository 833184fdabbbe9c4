/** Masks of a sample model by the real command, all on this machine and without services. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { run } from '../../test/run-command.js';

// Processes start slowly on a busy machine.
jest.setTimeout(60_000);

const MODEL = fileURLToPath(new URL('../../../../examples/models/books-qwen2', import.meta.url));
const WEIGHTS = 2_818_048;

let folder: string;
/** The zeros of the model, and masks that drop every other weight. */
let zeros: string;
let half: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secateur-masks-'));
  [zeros, half] = [join(folder, 'zeros.safetensors'), join(folder, 'half.safetensors')];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('masks', () => {
  test('of a dense model are exported, filled, applied, exported again and compared', async () => {
    const exported = await run('masks', 'export', MODEL, '--out', zeros);
    expect(exported).toMatchObject({
      exitCode: 0,
      stdout: `0.00 % (0) of 2,818,048 weights in 28 projections are exactly zero: ${zeros}\n`,
    });
    expect(exported.stderr).toMatch(/\n100 % of 344\.0 KiB\n$/);

    const masks = await readFile(zeros);
    await writeFile(half, masks.fill(0b01010101, 8 + Number(masks.readBigUInt64LE())));
    const output = join(folder, 'applied');
    const applied = await run('masks', 'apply', '--model', MODEL, '--masks', half, '--out', output, '--json', '--quiet');
    expect(applied).toMatchObject({ exitCode: 0, stderr: '' });
    expect(JSON.parse(applied.stdout)).toMatchObject({ output, weights: WEIGHTS, dropped: WEIGHTS / 2, untouched: [] });
    expect((await readdir(output)).sort()).toEqual((await readdir(MODEL)).sort());

    // The model has no zeros of its own, so the masks come back byte for byte.
    const again = join(folder, 'again.safetensors');
    expect(await run('masks', 'export', output, '--out', again, '--quiet')).toMatchObject({ exitCode: 0, stderr: '' });
    expect((await readFile(again)).equals(masks)).toBe(true);

    const compared = await run('masks', 'diff', zeros, output, '--json', '--quiet');
    expect(compared).toMatchObject({ exitCode: 0, stderr: '' });
    expect(JSON.parse(compared.stdout)).toMatchObject({
      droppedInA: 0,
      droppedInB: WEIGHTS / 2,
      droppedInBoth: 0,
      agreement: 0,
      projections: expect.arrayContaining([expect.objectContaining({ name: 'model.layers.0.self_attn.q_proj', droppedInB: 256 * 128 })]),
      onlyInA: [],
      onlyInB: [],
    });

    const inspected = JSON.parse((await run('inspect', output, '--json')).stdout) as { blocks: object[]; sparsity: number };
    expect(inspected.sparsity).toBe(0.5);
    expect(inspected.blocks).toHaveLength(4);
    for (const block of inspected.blocks) expect(block).toMatchObject({ sparsity: 0.5, patterns: ['2:4', '4:8'], nans: 0 });
  });

  test('are compared in a table with a row for all', async () => {
    const { exitCode, stdout } = await run('masks', 'diff', half, half, '--quiet');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/all 28 .* 1,409,024 .* 1,409,024 .* 1,409,024 .* 100\.00 %/);
    expect(stdout).toContain(`A: ${half}\nB: ${half}\n`);
  });

  test('of projections that a file leaves out are told to be untouched', async () => {
    const header = Buffer.from(
      JSON.stringify({ 'model.layers.0.self_attn.q_proj.weight': { dtype: 'U8', shape: [256, 32], data_offsets: [0, 8192] } }),
    );
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.byteLength));
    const one = join(folder, 'one.safetensors');
    await writeFile(one, Buffer.concat([length, header, Buffer.alloc(8192)]));
    const { exitCode, stdout } = await run('masks', 'apply', '--model', MODEL, '--masks', one, '--out', join(folder, 'one'), '--quiet');
    expect(exitCode).toBe(0);
    expect(stdout).toContain('0.00 % (0) of 65,536 weights in 1 of 28 projections were dropped');
    expect(stdout).toContain('Without a mask, and untouched: model.layers.0.self_attn.k_proj, model.layers.0.self_attn.v_proj,');
  });
});

describe('wrong inputs', () => {
  const other = MODEL.replace('books-qwen2', 'books-opt');

  test.each<[string, number, () => string[], RegExp]>([
    ['a file that exists', 2, () => ['export', MODEL, '--out', zeros], /--out .*zeros\.safetensors exists already/],
    ['a missing option', 2, () => ['apply', '--model', MODEL, '--out', join(folder, 'out')], /--masks <file> is missing/],
    [
      'masks of another model',
      1,
      () => ['apply', '--model', other, '--masks', half, '--out', join(folder, 'out')],
      /books-opt has no projection for/,
    ],
    ['a file that holds no masks', 1, () => ['diff', half, join(MODEL, 'model.safetensors')], /is BF16 .*; a mask is U8/],
    ['a file that does not exist', 1, () => ['diff', half, join(folder, 'nothing')], /nothing: it does not exist/],
  ])('%s', async (_what, expected, args, message) => {
    const { exitCode, stdout, stderr } = await run('masks', ...args());
    expect({ exitCode, stdout }).toEqual({ exitCode: expected, stdout: '' });
    expect(stderr).toMatch(message);
  });
});
