import type { KubernetesListObject, KubeConfig } from '@kubernetes/client-node';
import { loadConfig, withTimeout } from '../kubernetes-client.js';
import { GROUP, identityOf, PLURAL, VERSION, type Identity, type PruneJob, type PruneJobStatus } from './prune-job.js';

const KIND = { group: GROUP, version: VERSION, plural: PLURAL };

/** The PruneJobs of one namespace, or of all where none is given. */
export function collectionPath(namespace: string | undefined): string {
  const within = namespace === undefined ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
  return `/apis/${GROUP}/${VERSION}${within}/${PLURAL}`;
}

export async function listPruneJobs(config: KubeConfig, namespace: string | undefined): Promise<KubernetesListObject<PruneJob>> {
  const { CustomObjectsApi } = await import('@kubernetes/client-node');
  const api = config.makeApiClient(CustomObjectsApi);
  const list: unknown = await (namespace === undefined
    ? api.listCustomObjectForAllNamespaces(KIND)
    : api.listNamespacedCustomObject({ ...KIND, namespace }));
  return list as KubernetesListObject<PruneJob>;
}

export async function readPruneJob({ namespace, name }: Identity): Promise<PruneJob> {
  const { CustomObjectsApi } = await import('@kubernetes/client-node');
  const api = (await loadConfig()).makeApiClient(CustomObjectsApi);
  const object: unknown = await withTimeout(api.getNamespacedCustomObject({ ...KIND, namespace, name }));
  return object as PruneJob;
}

/** Fails with 409 where the object is not the version at hand any more. */
export function patchFinalizers(object: PruneJob, finalizers: readonly string[]): Promise<PruneJob> {
  return patch(object, 'object', { metadata: { finalizers } });
}

/** Fails with 409 where the object is not the version at hand any more. Fields that the new status lacks are removed. */
export function patchStatus(object: PruneJob, status: PruneJobStatus): Promise<PruneJob> {
  const removed = Object.keys(object.status ?? {}).filter((field) => !(field in status));
  return patch(object, 'status', { status: { ...Object.fromEntries(removed.map((field) => [field, null])), ...status } });
}

async function patch(
  object: PruneJob,
  part: 'object' | 'status',
  change: { readonly metadata?: object; readonly status?: object },
): Promise<PruneJob> {
  const { CustomObjectsApi, PatchStrategy, setHeaderOptions } = await import('@kubernetes/client-node');
  const api = (await loadConfig()).makeApiClient(CustomObjectsApi);
  const { namespace, name, uid, resourceVersion } = identityOf(object);
  const body = { ...change, metadata: { ...change.metadata, uid, resourceVersion } };
  const request = { ...KIND, namespace, name, body };
  const options = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
  const patched: unknown = await withTimeout(
    part === 'status' ? api.patchNamespacedCustomObjectStatus(request, options) : api.patchNamespacedCustomObject(request, options),
  );
  return patched as PruneJob;
}
