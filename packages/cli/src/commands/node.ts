import { runKernelNode, type KernelNodeOptions } from '@secateur/kernel-node';
import { toServiceSecurity, type ServiceSecurityFlags } from '../input/security-options.js';
import { runService } from './run-service.js';

export interface NodeOptions extends ServiceSecurityFlags {
  readonly listen: string;
  readonly httpListen?: string;
  readonly name?: string;
  readonly backend: KernelNodeOptions['backend'];
  readonly threads: number;
  readonly memory?: number;
  readonly cpus?: readonly number[];
  readonly numaNode?: number;
  /** In seconds. */
  readonly drainTimeout: number;
  readonly healthListen?: string;
  readonly logLevel: KernelNodeOptions['logLevel'];
}

export async function node({ memory, name, drainTimeout, ...options }: NodeOptions): Promise<void> {
  const drainTimeoutMs = 1000 * drainTimeout;
  await runService(
    (signal, onListening) =>
      runKernelNode({
        ...options,
        ...toServiceSecurity(options),
        ...(name === undefined ? {} : { name }),
        ...(memory === undefined ? {} : { memoryBytes: memory }),
        drainTimeoutMs,
        onListening,
        signal,
      }),
    drainTimeoutMs,
  );
}
