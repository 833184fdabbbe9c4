import { resolveLocation } from '@secateur/checkpoint';
import { runKernelNode, type KernelNodeOptions } from '@secateur/kernel-node';
import { checkPaths } from '../input/check-request.js';
import { toServiceSecurity, type ServiceSecurityFlags } from '../input/security-options.js';
import { runService } from './run-service.js';

export interface NodeOptions extends ServiceSecurityFlags {
  readonly listen: string;
  readonly metricsListen?: string;
  readonly name?: string;
  readonly backend: KernelNodeOptions['backend'];
  readonly threads: number;
  readonly memory?: number;
  readonly cpus?: readonly number[];
  readonly numaNode?: number;
  /** In seconds. */
  readonly drainTimeout: number;
  readonly healthListen?: string;
  readonly root?: readonly string[];
  readonly logLevel: KernelNodeOptions['logLevel'];
}

export async function node({ memory, name, drainTimeout, root = [], ...options }: NodeOptions): Promise<void> {
  await checkPaths(root.map((path) => ({ flag: '--root', path, expected: 'exists' })));
  const drainTimeoutMs = 1000 * drainTimeout;
  await runService(
    (signal, onListening) =>
      runKernelNode({
        ...options,
        ...toServiceSecurity(options),
        ...(name === undefined ? {} : { name }),
        ...(memory === undefined ? {} : { memoryBytes: memory }),
        roots: root.map(resolveLocation),
        drainTimeoutMs,
        onListening,
        signal,
      }),
    drainTimeoutMs,
  );
}
