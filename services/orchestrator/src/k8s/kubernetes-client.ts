import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeConfig } from '@kubernetes/client-node';

const CALL_TIMEOUT_MS = 30_000;

/** HTTP statuses of the API server: there is no such object, and it is another version by now or there already. */
export const NOT_FOUND = 404;
export const CONFLICT = 409;

/** The cluster that KUBECONFIG or the service account of the pod names. The client takes a second to load, so only those wait who need it. */
export async function loadConfig(): Promise<KubeConfig> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  config.loadFromDefault();
  return config;
}

/** The namespace of the pod, or of the present context. */
export function ownNamespace(config: KubeConfig): string {
  return config.getContextObject(config.getCurrentContext())?.namespace ?? 'default';
}

/** HTTP status of an error of the client: `code` where a call or a watch under way fails, `statusCode` where a watch is refused. */
export function httpStatusOf(error: unknown): unknown {
  if (typeof error !== 'object' || error === null) return undefined;
  if ('statusCode' in error) return error.statusCode;
  return 'code' in error ? error.code : undefined;
}

/** The client itself waits for an answer for ever. */
export async function withTimeout<Value>(call: Promise<Value>, timeoutMs = CALL_TIMEOUT_MS): Promise<Value> {
  const stop = new AbortController();
  const late = sleep(timeoutMs, undefined, { signal: stop.signal, ref: false }).then(() => {
    throw new Error(`No answer within ${Math.round(timeoutMs)} ms.`);
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    stop.abort();
    late.catch(() => undefined);
  }
}
