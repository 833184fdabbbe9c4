/** Where the threads of a node run: asked of the system, thread by thread. */
import { readdir, readFile } from 'node:fs/promises';
import { describe, expect, test } from '@jest/globals';
import { formatCpuList, parseCpuList } from '@secateur/core';
import { connect } from '@secateur/rpc';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { ServiceProcess } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually } from '../support/jobs.js';

const NODE = ['node', '--listen', '127.0.0.1:0', '--backend', 'cpu', '--memory', '64MiB'];

const allowedIn = (status: string): string => /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';

/** The processors that each thread of a process may use, as Linux writes them. */
async function processorsOfThreads(pid: number): Promise<string[]> {
  const threads = await readdir(`/proc/${pid}/task`);
  return Promise.all(threads.map(async (thread) => allowedIn(await readFile(`/proc/${pid}/task/${thread}/status`, 'utf8'))));
}

async function describeEngine(address: string) {
  const channel = connect(address, { kind: 'control' });
  try {
    return (await channel.client(KernelServiceDefinition).describeNode({}, { timeoutMs: 10_000 })).engine;
  } finally {
    channel.close();
  }
}

const describeOnLinux = process.platform === 'linux' ? describe : describe.skip;

describeOnLinux('the threads of a node', () => {
  const usable = async (): Promise<number[]> => parseCpuList(allowedIn(await readFile('/proc/self/status', 'utf8'))) ?? [];

  test('run on the processors of --cpus, one each, and the others where they like', async () => {
    const everywhere = await usable();
    // The other way round, so that it is the list that decides.
    const cpus = [...everywhere].reverse();
    const { process: node, address } = await ServiceProcess.start([...NODE, '--cpus', cpus.join(',')]);
    try {
      const lists = await processorsOfThreads(node.pid);
      if (everywhere.length > 1) {
        for (const cpu of cpus) expect(lists.filter((list) => list === String(cpu))).toHaveLength(1);
        expect(lists.filter((list) => list === formatCpuList(everywhere))).toHaveLength(lists.length - cpus.length);
      }
      expect(await describeEngine(address)).toMatchObject({ threads: cpus.length, cpus: formatCpuList(cpus), numaNode: undefined });
      await eventually(() => node.output.includes(`"cpus":"${formatCpuList(cpus)}"`), 'the log tells the processors');
    } finally {
      await node.signal('SIGTERM');
    }
  });

  test('run where they like when nothing is said', async () => {
    const { process: node, address } = await ServiceProcess.start([...NODE, '--threads', '2']);
    try {
      const everywhere = formatCpuList(await usable());
      expect(new Set(await processorsOfThreads(node.pid))).toEqual(new Set([everywhere]));
      expect(await describeEngine(address)).toMatchObject({ cpus: '', numaNode: undefined });
    } finally {
      await node.signal('SIGTERM');
    }
  });

  test('run on the processors of a NUMA node, or the system is told to refuse its memory', async () => {
    const [first] = (await usable()) as [number];
    const started = await ServiceProcess.start([...NODE, '--numa-node', '0', '--cpus', String(first)]).catch((error: unknown) => error);
    if (started instanceof Error) {
      // Another node's processor, a container without SYS_NICE, or a kernel that knows no nodes.
      expect(started.message).toMatch(/the processors of NUMA node 0 are|prefer the memory of NUMA node 0|--numa-node 0 does not exist/);
      return;
    }
    const { process: node, address } = started as Awaited<ReturnType<typeof ServiceProcess.start>>;
    try {
      expect(await describeEngine(address)).toMatchObject({ threads: 1, cpus: String(first), numaNode: 0 });
    } finally {
      await node.signal('SIGTERM');
    }
  });

  test.each([
    [['--cpus', '60000'], /--cpus names 60000; the processors that this process may use are \d/],
    [['--numa-node', '60000'], /--numa-node 60000 does not exist; (this machine has|.* tells of none)/],
    [['--cpus', '0-'], /error: --cpus 0-: It must be processors such as 0-7,16-23, each named once/],
  ])('%j is refused by name', async (options, message) => {
    const { exitCode, stderr } = await runCommand([...NODE, ...options]);
    expect(stderr).toMatch(message);
    expect(exitCode).toBe(2);
  });

  test('more threads than processors are refused by name', async () => {
    const [first] = (await usable()) as [number];
    const { exitCode, stderr } = await runCommand([...NODE, '--threads', '2', '--cpus', String(first)]);
    expect(stderr).toMatch(/--threads is 2, and 1 processors are named; each thread takes one/);
    expect(exitCode).toBe(2);
  });
});
