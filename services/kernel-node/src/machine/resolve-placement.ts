import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatCpuList, parseCpuList, SecateurError } from '@secateur/core';
import type { Placement } from '@secateur/native';

/** What was asked for. */
export interface PlacementOptions {
  /** Processors, one per thread. */
  readonly cpus?: readonly number[];
  /** NUMA node whose memory is preferred, and whose processors are taken when none are named. */
  readonly numaNode?: number;
}

/** Where Linux tells of processors. */
export interface MachineFiles {
  readonly platform: NodeJS.Platform;
  /** Has a folder `nodeN` for each NUMA node. */
  readonly nodes: string;
  /** Status of this process. */
  readonly status: string;
}

const THIS_MACHINE: MachineFiles = { platform: process.platform, nodes: '/sys/devices/system/node', status: '/proc/self/status' };

/** The placement that was asked for, checked against the machine; undefined when none was. Throws INVALID_REQUEST telling what exists. */
export async function resolvePlacement(options: PlacementOptions, machine: MachineFiles = THIS_MACHINE): Promise<Placement | undefined> {
  const { cpus, numaNode } = options;
  if (cpus === undefined && numaNode === undefined) return undefined;
  if (machine.platform !== 'linux') {
    refuse(cpus === undefined ? '--numa-node' : '--cpus', `is offered on Linux only; this is ${machine.platform}`);
  }
  const usable = await usableCpus(machine);
  const unknown = cpus?.filter((cpu) => !usable.includes(cpu)) ?? [];
  if (unknown.length > 0) {
    refuse('--cpus', `names ${formatCpuList(unknown)}; the processors that this process may use are ${formatCpuList(usable)}`);
  }
  if (numaNode === undefined) return { cpus: cpus ?? [] };
  const nodeCpus = await cpusOfNode(machine, numaNode);
  const outside = cpus?.filter((cpu) => !nodeCpus.includes(cpu)) ?? [];
  if (outside.length > 0) {
    refuse('--cpus', `names ${formatCpuList(outside)}; the processors of NUMA node ${numaNode} are ${formatCpuList(nodeCpus)}`);
  }
  const taken = cpus ?? nodeCpus.filter((cpu) => usable.includes(cpu));
  if (taken.length === 0) {
    const has = nodeCpus.length === 0 ? 'has no processors' : `has the processors ${formatCpuList(nodeCpus)}`;
    refuse('--numa-node', `${numaNode} ${has}; this process may use ${formatCpuList(usable)}`);
  }
  return { cpus: taken, numaNode };
}

/** The processors that this process may use: fewer than the machine's in many containers. */
async function usableCpus({ status }: MachineFiles): Promise<number[]> {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(await readFile(status, 'utf8'))?.[1];
  const cpus = list === undefined ? undefined : parseCpuList(list);
  if (cpus === undefined)
    throw new SecateurError('FAILED_PRECONDITION', `${status} has no Cpus_allowed_list; leave --cpus and --numa-node out.`);
  return cpus;
}

async function cpusOfNode({ nodes }: MachineFiles, numaNode: number): Promise<number[]> {
  const names = await readdir(nodes).catch(() => []);
  const known = names.flatMap((name) => /^node(\d+)$/.exec(name)?.[1] ?? []).map(Number);
  if (!known.includes(numaNode)) {
    const there =
      known.length === 0 ? `${nodes} tells of none` : `this machine has ${formatCpuList(known.sort((left, right) => left - right))}`;
    refuse('--numa-node', `${numaNode} does not exist; ${there}`);
  }
  // Empty for a node that has memory only.
  return parseCpuList(await readFile(join(nodes, `node${numaNode}`, 'cpulist'), 'utf8')) ?? [];
}

function refuse(field: string, description: string): never {
  throw new SecateurError('INVALID_REQUEST', `The threads cannot be placed: ${field} ${description}.`, {
    violations: [{ field, description }],
  });
}
