import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { resolvePlacement, type MachineFiles } from './resolve-placement.js';

/** A machine of three NUMA nodes, the last with memory only, of whose 16 processors this process may use 2-9. */
let machine: MachineFiles;
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-machine-'));
  for (const [node, cpus] of ['0-3,8-11', '4-7,12-15', ''].entries()) {
    await mkdir(join(folder, `node${node}`));
    await writeFile(join(folder, `node${node}`, 'cpulist'), `${cpus}\n`);
  }
  await writeFile(join(folder, 'online'), '0-2\n');
  const status = join(folder, 'status');
  await writeFile(status, 'Name:\tnode\nCpus_allowed:\t3fc\nCpus_allowed_list:\t2-9\nMems_allowed_list:\t0-2\n');
  machine = { platform: 'linux', nodes: folder, status };
});
afterAll(() => rm(machine.nodes, { recursive: true }));

test('nothing that was not asked for', async () => {
  expect(await resolvePlacement({}, machine)).toBeUndefined();
});

test('processors are taken in the order named', async () => {
  expect(await resolvePlacement({ cpus: [9, 2, 3] }, machine)).toEqual({ cpus: [9, 2, 3] });
});

test('a NUMA node gives those of its processors that this process may use', async () => {
  expect(await resolvePlacement({ numaNode: 0 }, machine)).toEqual({ cpus: [2, 3, 8, 9], numaNode: 0 });
  expect(await resolvePlacement({ numaNode: 1, cpus: [7, 5] }, machine)).toEqual({ cpus: [7, 5], numaNode: 1 });
});

describe('what is not there is refused by name', () => {
  test.each([
    [{ cpus: [3, 0, 1, 12] }, '--cpus names 0-1,12; the processors that this process may use are 2-9'],
    [{ numaNode: 3 }, '--numa-node 3 does not exist; this machine has 0-2'],
    [{ numaNode: 2 }, '--numa-node 2 has no processors; this process may use 2-9'],
    [{ numaNode: 1, cpus: [3, 4] }, '--cpus names 3; the processors of NUMA node 1 are 4-7,12-15'],
  ])('%j', async (options, message) => {
    await expect(resolvePlacement(options, machine)).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      message: expect.stringContaining(message),
    });
  });

  test('a machine without NUMA nodes', async () => {
    const nodes = join(machine.nodes, 'nowhere');
    await expect(resolvePlacement({ numaNode: 0 }, { ...machine, nodes })).rejects.toThrow(
      `--numa-node 0 does not exist; ${nodes} tells of none`,
    );
  });

  test.each([
    [{ cpus: [2] }, '--cpus is offered on Linux only; this is darwin'],
    [{ numaNode: 0 }, '--numa-node is offered on Linux only; this is darwin'],
  ])('another system: %j', async (options, message) => {
    await expect(resolvePlacement(options, { ...machine, platform: 'darwin' })).rejects.toThrow(message);
  });
});
