import { availableParallelism } from 'node:os';

/** What a machine has to run nodes on. */
export interface Machine {
  readonly processors: number;
  /** That the CUDA backend would find. */
  readonly devices: number;
  /** As CUDA takes it: indexes or identifiers, separated by commas; undefined for all devices. */
  readonly visibleDevices: string | undefined;
}

/** This machine, as a node with that backend would find it. */
export async function describeMachine(backend: string): Promise<Machine> {
  return {
    processors: availableParallelism(),
    devices: backend === 'cpu' ? 0 : (await import('@secateur/kernel-node/cuda-devices')).countCudaDevices(),
    visibleDevices: process.env['CUDA_VISIBLE_DEVICES'],
  };
}

/**
 * The environment of each node to start: one for each device where there are some, else two, or one on a single processor, if no other number is
 * asked for. A node uses the first device that it sees, so that of several each sees one, in turn.
 */
export function environmentsOfNodes(nodes: number | undefined, machine: Machine): Readonly<Record<string, string>>[] {
  const { processors, devices } = machine;
  const count = nodes ?? (devices > 0 ? devices : processors > 1 ? 2 : 1);
  const seen = machine.visibleDevices?.split(',') ?? Array.from({ length: devices }, (_, index) => String(index));
  return Array.from({ length: count }, (_, node) => (devices > 1 ? { CUDA_VISIBLE_DEVICES: seen[node % devices]! } : {}));
}
