import { resolve } from 'node:path';
import { runOrchestrator, type OrchestratorOptions } from '@secateur/orchestrator';
import { checkPaths } from '../input/check-request.js';
import { runService } from './run-service.js';

export interface ServeOptions {
  readonly listen: string;
  readonly advertise?: string;
  readonly node: readonly string[];
  readonly root: readonly string[];
  readonly logLevel: OrchestratorOptions['logLevel'];
}

export async function serve({ listen, advertise, node, root, logLevel }: ServeOptions): Promise<void> {
  await checkPaths(root.map((path) => ({ flag: '--root', path, expected: 'exists' })));
  await runService((signal, onListening) =>
    runOrchestrator({
      listen,
      ...(advertise === undefined ? {} : { advertise }),
      nodes: node,
      roots: root.map((path) => resolve(path)),
      logLevel,
      onListening,
      signal,
    }),
  );
}
