import { execFile, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isDeepStrictEqual } from 'node:util';
import { dumpYaml, loadYaml } from '@kubernetes/client-node';
import { parse, parseAllDocuments } from 'yaml';
import { repositoryRoot } from './paths.js';

const OLDEST_KUSTOMIZE = 5;
const require = createRequire(import.meta.url);

export const kubernetesFolder = join(repositoryRoot, 'deploy/k8s');

/** Why manifests cannot be built here; undefined where they can. */
export const kubectlProblem = findKubectlProblem();

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Readonly<Record<string, string>> };
}

interface Probe {
  readonly grpc?: { readonly port: number; readonly service?: string };
  readonly httpGet?: { readonly port: number | string };
  readonly exec?: object;
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly valueFrom?: { readonly secretKeyRef?: { readonly name: string } } }[];
  readonly envFrom?: readonly { readonly configMapRef?: { readonly name: string } }[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly resources: Readonly<Record<'requests' | 'limits', Readonly<Record<string, string>>>>;
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly securityContext?: object;
  readonly volumeMounts?: readonly { readonly name: string }[];
}

interface PodSpec {
  readonly serviceAccountName: string;
  readonly automountServiceAccountToken: boolean;
  readonly priorityClassName?: string;
  readonly terminationGracePeriodSeconds?: number;
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly topologySpreadConstraints?: readonly { readonly labelSelector: Selector }[];
  readonly containers: readonly Container[];
  readonly volumes?: readonly {
    readonly name: string;
    readonly secret?: { readonly secretName: string };
    readonly configMap?: { readonly name: string };
    readonly persistentVolumeClaim?: { readonly claimName: string };
    readonly emptyDir?: { readonly sizeLimit?: string };
  }[];
}

export interface Selector {
  readonly matchLabels: Readonly<Record<string, string>>;
}

export interface Workload extends KubernetesObject {
  readonly spec: {
    readonly serviceName?: string;
    readonly replicas: number;
    readonly selector: Selector;
    readonly template: { readonly metadata: { readonly labels: Readonly<Record<string, string>> }; readonly spec: PodSpec };
    readonly volumeClaimTemplates?: readonly { readonly metadata: { readonly name: string } }[];
  };
}

/** The objects that `kubectl kustomize` makes of a folder. */
export async function buildManifests(folder: string): Promise<KubernetesObject[]> {
  const { stdout } = await promisify(execFile)('kubectl', ['kustomize', folder], { maxBuffer: 1 << 26 });
  return parseAllDocuments(stdout).map((document) => document.toJS() as KubernetesObject);
}

/** The base with some components. */
export async function buildWithComponents(components: readonly string[]): Promise<KubernetesObject[]> {
  // Beside the components, as kustomize takes no absolute paths.
  const folder = await mkdtemp(join(kubernetesFolder, 'overlays', '.test-'));
  try {
    const kustomization = {
      namespace: 'test',
      resources: ['../../base'],
      components: components.map((name) => `../../components/${name}`),
    };
    await writeFile(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization));
    return await buildManifests(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Where the schemas of API groups are that are not Kubernetes' own. */
const SCHEMA_PACKAGES: Readonly<Record<string, string>> = {
  'cert-manager.io': '@kubernetes-models/cert-manager',
  'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
};
/** No package has the schemas of these. */
const WITHOUT_SCHEMA = ['kueue.x-k8s.io', 'keda.sh'];

/** Throws when an object is not what the OpenAPI schema of its kind allows, or has fields that Kubernetes does not know. */
export function checkSchema(object: KubernetesObject): void {
  const { apiVersion, kind, metadata } = object;
  const group = apiVersion.split('/')[0] ?? '';
  if (WITHOUT_SCHEMA.includes(group)) return;
  const models = require(`${SCHEMA_PACKAGES[group] ?? 'kubernetes-models'}/${apiVersion}/${kind}`) as Readonly<
    Record<string, new (data: object) => { validate(): void }>
  >;
  const Model = models[kind];
  if (Model === undefined) throw new Error(`There is no schema of ${apiVersion} ${kind}.`);
  new Model(structuredClone(object)).validate();
  if (SCHEMA_PACKAGES[group] !== undefined) return;
  // The client knows all fields of Kubernetes' own kinds, and drops others.
  const known: unknown = parse(dumpYaml(loadYaml(JSON.stringify(object))));
  if (!isDeepStrictEqual(known, object)) throw new Error(`${kind} ${metadata.name} has fields that Kubernetes does not know.`);
}

function findKubectlProblem(): string | undefined {
  const { status, stdout } = spawnSync('kubectl', ['version', '--client'], { encoding: 'utf8' });
  if (status !== 0) return 'kubectl is not here';
  const kustomize = /Kustomize Version: v(\d+)/.exec(stdout)?.[1];
  return Number(kustomize) >= OLDEST_KUSTOMIZE ? undefined : `kubectl is older than 1.27, its kustomize older than ${OLDEST_KUSTOMIZE}`;
}
