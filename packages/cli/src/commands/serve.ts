import { resolve } from 'node:path';
import { defaultStaging, resolveLocation } from '@secateur/checkpoint';
import {
  defaultState,
  runOrchestrator,
  type ControlledNamespaces,
  type NodeSource,
  type OrchestratorOptions,
} from '@secateur/orchestrator';
import { checkPaths } from '../input/check-request.js';
import { toServiceSecurity, toTokenOptions, type ServiceSecurityFlags, type TokenFlags } from '../input/security-options.js';
import { runService } from './run-service.js';

export interface ServeOptions extends ServiceSecurityFlags, TokenFlags {
  readonly listen: string;
  readonly httpListen?: string;
  readonly metricsListen?: string;
  readonly advertise?: string;
  readonly healthListen?: string;
  readonly node: readonly NodeSource[];
  readonly root: readonly string[];
  readonly state?: string;
  readonly staging?: string;
  readonly concurrentJobs: number;
  /** Seconds. */
  readonly lease: number;
  /** Days. */
  readonly keepJobs: number;
  readonly tenants?: string;
  /** True without a namespace. */
  readonly controller?: ControlledNamespaces | true;
  readonly logLevel: OrchestratorOptions['logLevel'];
}

const MS_PER_DAY = 86_400_000;

export async function serve(options: ServeOptions): Promise<void> {
  const {
    listen,
    httpListen,
    metricsListen,
    advertise,
    healthListen,
    node,
    root,
    state,
    staging,
    concurrentJobs,
    lease,
    keepJobs,
    tenants,
    controller,
    logLevel,
  } = options;
  await checkPaths(root.map((path) => ({ flag: '--root', path, expected: 'exists' })));
  const safety = { ...toServiceSecurity(options), ...toTokenOptions(options) };
  await runService((signal, onListening) =>
    runOrchestrator({
      listen,
      ...(httpListen === undefined ? {} : { httpListen }),
      ...(metricsListen === undefined ? {} : { metricsListen }),
      ...(advertise === undefined ? {} : { advertise }),
      ...(healthListen === undefined ? {} : { healthListen }),
      nodes: node,
      roots: root.map(resolveLocation),
      state: state ?? defaultState(),
      staging: staging === undefined ? defaultStaging() : resolve(staging),
      concurrentJobs,
      leaseMs: lease * 1000,
      keepJobsMs: keepJobs * MS_PER_DAY,
      ...(tenants === undefined ? {} : { tenants }),
      ...(controller === undefined ? {} : { controller: controller === true ? 'own' : controller }),
      logLevel,
      ...safety,
      onListening,
      signal,
    }),
  );
}
