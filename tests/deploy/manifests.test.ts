/** Every overlay is what Kubernetes takes, and what the processes need. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { runCommand } from '../support/command.js';
import {
  buildManifests,
  buildWithComponents,
  checkSchema,
  kubectlProblem,
  kubernetesFolder,
  type Container,
  type KubernetesObject,
  type Selector,
  type Workload,
} from '../support/manifests.js';
import { repositoryRoot } from '../support/paths.js';

const OVERLAYS = ['dev-cpu', 'single-gpu', 'cluster'];
const LABELS = ['name', 'component', 'part-of'].map((name) => `app.kubernetes.io/${name}`);
/** Seconds after which a service that has not stopped ends itself, beside the time to drain. */
const STOP_LIMIT_SECONDS = 30;
/** Not in the manifests: docs/operations.md says how to make them. */
const MADE_BY_HAND = ['secateur-database'];
const SERVICES: Readonly<Record<string, string>> = {
  orchestrator: 'secateur.v1.PruningService',
  'kernel-node': 'secateur.v1.KernelService',
};

const describeWithKubectl = kubectlProblem === undefined ? describe : describe.skip;
const suffix = kubectlProblem === undefined ? '' : ` (skipped: ${kubectlProblem})`;

const isWorkload = (object: KubernetesObject): object is Workload => ['Deployment', 'StatefulSet', 'DaemonSet'].includes(object.kind);
const ofKind = (objects: readonly KubernetesObject[], kind: string): KubernetesObject[] => objects.filter((object) => object.kind === kind);
const matches = ({ matchLabels }: Selector, labels: Readonly<Record<string, string>>): boolean =>
  Object.entries(matchLabels).every(([name, value]) => labels[name] === value);

describeWithKubectl.each(OVERLAYS)(`overlay %s${suffix}`, (overlay) => {
  let objects: readonly KubernetesObject[];
  let workloads: readonly Workload[];
  let containers: readonly { workload: Workload; container: Container }[];

  beforeAll(async () => {
    objects = await buildManifests(join(kubernetesFolder, 'overlays', overlay));
    workloads = objects.filter(isWorkload);
    containers = workloads.flatMap((workload) => workload.spec.template.spec.containers.map((container) => ({ workload, container })));
  });

  test('follows the schemas', () => {
    expect(objects.length).toBeGreaterThan(10);
    for (const object of objects) checkSchema(object);
  });

  test('names what everything is', () => {
    for (const { kind, metadata } of objects) {
      for (const label of LABELS) expect([kind, metadata.name, label, metadata.labels?.[label]]).not.toContain(undefined);
    }
    for (const { spec } of workloads) expect(Object.keys(spec.template.metadata.labels)).toEqual(expect.arrayContaining(LABELS));
  });

  test('every container has requests, limits and probes', () => {
    for (const { workload, container } of containers) {
      const { name, resources, startupProbe, readinessProbe, livenessProbe } = container;
      for (const amount of [resources.requests, resources.limits])
        expect(Object.keys(amount)).toEqual(expect.arrayContaining(['cpu', 'memory']));
      expect([name, startupProbe, readinessProbe, livenessProbe]).not.toContain(undefined);
      expect(workload.spec.template.spec.priorityClassName ?? 'otel-collector').toMatch(/^(secateur-.*|otel-collector)$/);
    }
  });

  test('probes ask a port that is opened, for a service that is there', () => {
    for (const { container } of containers) {
      const { name, ports, args = [] } = container;
      for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe]) {
        if (probe?.grpc !== undefined) {
          expect(ports.find(({ containerPort }) => containerPort === probe.grpc?.port)?.name).toBe('health');
          expect(args).toContain(`--health-listen=0.0.0.0:${probe.grpc.port}`);
        }
        if (probe?.httpGet !== undefined) expect(ports.map((port) => port.name)).toContain(probe.httpGet.port);
      }
      if (SERVICES[name] !== undefined) expect(container.readinessProbe?.grpc?.service).toBe(SERVICES[name]);
      expect(container.livenessProbe?.grpc?.service).toBeUndefined();
    }
  });

  test('ports that are named are listened on', () => {
    for (const { container } of containers) {
      if (SERVICES[container.name] === undefined) continue;
      const listened = (container.args ?? []).flatMap((arg) => /^--(?:[a-z]+-)?listen=.*:(\d+)$/.exec(arg)?.[1] ?? []);
      expect(container.ports.map(({ containerPort }) => String(containerPort)).sort()).toEqual(listened.sort());
    }
  });

  test('nothing runs as root, writes to its image or keeps privileges', () => {
    for (const { spec } of workloads) {
      const { securityContext, automountServiceAccountToken, serviceAccountName } = spec.template.spec;
      expect(securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
      // Only it asks the Kubernetes API.
      expect(automountServiceAccountToken).toBe(serviceAccountName === 'orchestrator');
    }
    for (const { container } of containers) {
      expect(container.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
    }
    for (const { spec } of workloads) {
      for (const { emptyDir } of spec.template.spec.volumes ?? []) if (emptyDir !== undefined) expect(emptyDir.sizeLimit).toBeDefined();
    }
  });

  test('images have a version, and those of others a digest', () => {
    for (const { container } of containers) {
      expect(container.image).toMatch(/^(secateur(-cuda)?:\d[\w.-]*|[a-z/-]+:\d[\w.-]*@sha256:[0-9a-f]{64})$/);
    }
  });

  test('selectors find what they are for', () => {
    const pods = workloads.map(({ spec }) => spec.template.metadata.labels);
    for (const { spec } of workloads) expect(matches(spec.selector, spec.template.metadata.labels)).toBe(true);
    const selectors = [
      ...ofKind(objects, 'PodDisruptionBudget').map(
        (object) => (object as KubernetesObject & { spec: { selector: Selector } }).spec.selector,
      ),
      ...ofKind(objects, 'PodMonitor').map((object) => (object as KubernetesObject & { spec: { selector: Selector } }).spec.selector),
      ...ofKind(objects, 'Service').map((object) => ({
        matchLabels: (object as KubernetesObject & { spec: { selector: Record<string, string> } }).spec.selector,
      })),
      ...workloads.flatMap(({ spec }) => (spec.template.spec.topologySpreadConstraints ?? []).map(({ labelSelector }) => labelSelector)),
    ];
    expect(selectors.length).toBeGreaterThan(6);
    for (const selector of selectors) expect(pods.filter((labels) => matches(selector, labels))).toHaveLength(1);
    for (const { spec } of workloads) {
      if (spec.serviceName !== undefined)
        expect(ofKind(objects, 'Service').map(({ metadata }) => metadata.name)).toContain(spec.serviceName);
    }
  });

  test('pods that are not ready hold no drain up', () => {
    const budgets = ofKind(objects, 'PodDisruptionBudget') as (KubernetesObject & { spec: object })[];
    expect(budgets).toHaveLength(2);
    for (const { spec } of budgets) expect(spec).toMatchObject({ unhealthyPodEvictionPolicy: 'AlwaysAllow' });
  });

  test('what pods refer to is there, or it is said where it comes from', async () => {
    const operations = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
    const names = (kind: string): string[] => ofKind(objects, kind).map(({ metadata }) => metadata.name);
    const certified = ofKind(objects, 'Certificate').map(
      (certificate) => (certificate as KubernetesObject & { readonly spec: { readonly secretName: string } }).spec.secretName,
    );
    const isThere = (kind: string, name: string): boolean =>
      names(kind).includes(name) ||
      (kind === 'Secret' && certified.includes(name)) ||
      (MADE_BY_HAND.includes(name) && operations.includes(name));
    for (const { spec } of workloads) {
      const { serviceAccountName, priorityClassName, volumes = [], containers: all } = spec.template.spec;
      expect(names('ServiceAccount')).toContain(serviceAccountName);
      if (priorityClassName !== undefined) expect(names('PriorityClass')).toContain(priorityClassName);
      const secrets = [
        ...volumes.flatMap(({ secret }) => secret?.secretName ?? []),
        ...all.flatMap(({ env = [] }) => env.flatMap(({ valueFrom }) => valueFrom?.secretKeyRef?.name ?? [])),
      ];
      const configMaps = [
        ...volumes.flatMap(({ configMap }) => configMap?.name ?? []),
        ...all.flatMap(({ envFrom = [] }) => envFrom.flatMap(({ configMapRef }) => configMapRef?.name ?? [])),
      ];
      for (const name of secrets) expect([name, isThere('Secret', name)]).toEqual([name, true]);
      for (const name of configMaps) expect([name, isThere('ConfigMap', name)]).toEqual([name, true]);
      for (const { persistentVolumeClaim } of volumes) {
        if (persistentVolumeClaim !== undefined) expect(names('PersistentVolumeClaim')).toContain(persistentVolumeClaim.claimName);
      }
      const declared = [...volumes, ...(spec.volumeClaimTemplates ?? []).map(({ metadata }) => metadata)].map(({ name }) => name);
      expect(all.flatMap(({ volumeMounts = [] }) => volumeMounts.map(({ name }) => name)).sort()).toEqual(declared.sort());
    }
  });

  test('roles name what they allow', () => {
    const roles = [...ofKind(objects, 'Role'), ...ofKind(objects, 'ClusterRole')];
    for (const role of roles) expect([role.metadata.name, JSON.stringify(role).includes('"*"')]).toEqual([role.metadata.name, false]);
    for (const binding of [...ofKind(objects, 'RoleBinding'), ...ofKind(objects, 'ClusterRoleBinding')]) {
      const { subjects } = binding as KubernetesObject & { subjects: { namespace: string }[] };
      expect(subjects.map(({ namespace }) => namespace)).toEqual(['secateur']);
    }
  });

  test('what is bound in the whole cluster has its namespace in its name, so that those of others stay as they are', () => {
    for (const { metadata } of ofKind(objects, 'ClusterRoleBinding')) expect(metadata.name).toMatch(/\.secateur$/);
  });

  test('pods have time to drain', () => {
    for (const { workload, container } of containers) {
      if (SERVICES[container.name] === undefined) continue;
      const drain = Number((container.args ?? []).flatMap((arg) => /^--drain-timeout=(\d+)$/.exec(arg)?.[1] ?? [])[0] ?? 0);
      expect(workload.spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(drain + STOP_LIMIT_SECONDS);
    }
  });

  test('either certificates or --insecure', () => {
    for (const { container } of containers) {
      if (SERVICES[container.name] === undefined) continue;
      const args = container.args ?? [];
      const certified = ['--tls-cert', '--tls-key', '--tls-ca'].every((flag) => args.some((arg) => arg.startsWith(`${flag}=`)));
      expect(certified).toBe(!args.includes('--insecure'));
      expect(certified).toBe(overlay === 'cluster');
      // Without certificates methods over HTTP would be in the clear.
      const http = args.filter((arg) => arg.startsWith('--http-listen'));
      expect(http).toHaveLength(certified && container.name === 'orchestrator' ? 1 : 0);
    }
  });

  test('every option is one of the command', async () => {
    const offered: Record<string, Set<string>> = {};
    for (const { container } of containers) {
      const [command, ...options] = container.args ?? [];
      if (SERVICES[container.name] === undefined || command === undefined) continue;
      offered[command] ??= new Set((await runCommand([command, '--help'])).stdout.match(/--[a-z-]+/g));
      const unknown = options.map((option) => option.split('=')[0] ?? '').filter((option) => !offered[command]?.has(option));
      expect(unknown).toEqual([]);
    }
  });
});

describeWithKubectl(`components${suffix}`, () => {
  test.each([
    [['insecure', 'postgres', 'gpu', 'keda', 'kueue']],
    [['mtls', 'embedded-state', 'network-policy']],
    [['mtls', 'postgres', 'postgres-tls', 'shared-models', 's3', 'network-policy', 's3-network-policy']],
    [['insecure', 'postgres', 'controller', 'otel-collector', 'prometheus']],
  ])('%j go together', async (components) => {
    for (const object of await buildWithComponents(components)) checkSchema(object);
  });

  test('with s3, processes find the store and its keys, and results are made on a volume', async () => {
    const workloads = (await buildWithComponents(['insecure', 'embedded-state', 's3'])).filter(isWorkload);
    const operations = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
    const containers = workloads.flatMap(({ spec }) => spec.template.spec.containers).filter(({ name }) => SERVICES[name] !== undefined);
    expect(containers).toHaveLength(2);
    for (const { name, args = [], env = [], envFrom = [] } of containers) {
      expect(envFrom.map(({ configMapRef }) => configMapRef?.name)).toEqual([expect.stringMatching(/^secateur-store/)]);
      const secrets = env.filter(({ valueFrom }) => valueFrom?.secretKeyRef?.name === 'secateur-store');
      expect(secrets.map((variable) => variable.name)).toEqual(['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY']);
      expect(args).toContain('--root=$(STORE_ROOT)');
      expect(args.filter((arg) => arg.startsWith('--staging='))).toEqual(name === 'orchestrator' ? ['--staging=/staging'] : []);
    }
    expect(operations).toContain('secret generic secateur-store');
  });

  test('the schemas refuse what is wrong', async () => {
    const deployment = (await buildManifests(join(kubernetesFolder, 'overlays/cluster'))).find(({ kind }) => kind === 'Deployment');
    const changed = (change: (workload: Workload) => void): KubernetesObject => {
      const copy = structuredClone(deployment) as Workload;
      change(copy);
      return copy;
    };
    expect(() => checkSchema(changed((workload) => Object.assign(workload.spec, { replicas: 'two' })))).toThrow();
    expect(() => checkSchema(changed((workload) => Object.assign(workload.spec, { replica: 2 })))).toThrow(/does not know/);
    expect(() => checkSchema(changed((workload) => Object.assign(workload.spec, { template: undefined })))).toThrow();
  });
});

test('the dashboard asks for metrics that there are', async () => {
  const dashboard = JSON.parse(await readFile(join(kubernetesFolder, 'components/prometheus/secateur.json'), 'utf8')) as {
    panels: { targets: { expr: string }[] }[];
  };
  const alerts = await readFile(join(kubernetesFolder, 'components/prometheus/alerts.yaml'), 'utf8');
  const reference = await readFile(join(repositoryRoot, 'docs/reference/telemetry.md'), 'utf8');
  const asked = [...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)), alerts].join('\n');
  const names = new Set(asked.match(/\b(?:secateur|rpc_server)_[a-z_]+(?=[{[(]|\s|\))/g));
  expect(names.size).toBeGreaterThan(8);
  const known = [...reference.matchAll(/`((?:secateur|rpc)\.[a-z_.]+)`/g)].map((match) => (match[1] ?? '').replaceAll('.', '_'));
  const unknown = [...names].filter((name) => !known.includes(name.replace(/_(total|count|sum|bucket)$/, '')));
  expect(unknown).toEqual([]);
});
