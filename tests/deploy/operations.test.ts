/** The commands in docs/operations.md name files, objects and options that there are; CI has no cluster to run them on. */
import { execFileSync } from 'node:child_process';
import { chmod, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { findShellBlocks } from '../../scripts/lib/shell-blocks.mjs';
import { runCommand } from '../support/command.js';
import { buildManifests, kubectlProblem, kubernetesFolder, type KubernetesObject, type Workload } from '../support/manifests.js';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const page = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
const scripts = findShellBlocks(page).map(({ script }) => script);
const text = scripts.join('\n');

test('they are shell', () => {
  expect(scripts.length).toBeGreaterThan(8);
  for (const script of scripts) execFileSync('bash', ['-n', '-c', script]);
});

test('they name files that are there', async () => {
  const paths = [...new Set(text.match(/\b(?:deploy|examples)\/[\w./-]+/g))];
  expect(paths.length).toBeGreaterThan(3);
  for (const path of paths) await stat(join(repositoryRoot, path));
});

test('options of secateur are offered', async () => {
  const calls = [...text.matchAll(/(?:^|npx |-- )secateur ([a-z]+)((?: [^|&>\n]*)?)/gm)];
  expect(calls.length).toBeGreaterThan(1);
  for (const [, command = '', rest = ''] of calls) {
    const { stdout } = await runCommand([command, '--help']);
    const offered = new Set(stdout.match(/--[a-z-]+/g));
    const used = rest.match(/--[a-z-]+/g) ?? [];
    expect([command, used.filter((option) => !offered.has(option))]).toEqual([command, []]);
  }
});

test('alerts lead to sections', async () => {
  const alerts = await readFile(join(kubernetesFolder, 'components/prometheus/alerts.yaml'), 'utf8');
  const headings = [...page.matchAll(/^#+ (.+)$/gm)].map((match) => (match[1] ?? '').toLowerCase().replaceAll(' ', '-'));
  const anchors = [...alerts.matchAll(/docs\/operations\.md#([\w-]+)/g)].map((match) => match[1] ?? '');
  expect(anchors.length).toBeGreaterThan(3);
  for (const anchor of anchors) expect(headings).toContain(anchor);
});

(kubectlProblem === undefined ? test : test.skip)('they name objects of the cluster overlay', async () => {
  const objects = await buildManifests(join(kubernetesFolder, 'overlays/cluster'));
  const known = objects.map(({ kind, metadata }) => `${kind.toLowerCase()}/${metadata.name}`);
  const named = [...new Set(text.match(/\b(?:statefulset|service|deployment)\/[a-z-]+/g))];
  expect(named.length).toBeGreaterThan(3);
  expect(named.filter((name) => !known.includes(name))).toEqual([]);
});

(kubectlProblem === undefined ? test : test.skip)('what networks are open to beside the processes is told', async () => {
  const objects = await buildManifests(join(kubernetesFolder, 'overlays/cluster'));
  const policies = JSON.stringify(objects.filter(({ kind }) => kind === 'NetworkPolicy'));
  const namespaces = [...policies.matchAll(/"kubernetes\.io\/metadata\.name":"([a-z-]+)"/g)].map((match) => match[1] ?? '');
  expect(new Set(namespaces).size).toBeGreaterThan(1);
  for (const namespace of namespaces) expect(page).toContain(`namespace \`${namespace}\``);
  const collector = await readFile(join(kubernetesFolder, 'components/otel-collector/kustomization.yaml'), 'utf8');
  expect(page).toContain(`at port ${/TRACES_ENDPOINT=[\w.-]+:(\d+)/.exec(collector)?.[1] ?? ''}`);
});

/** Options whose value is a word of its own. */
const VALUED = new Set(
  ['namespace', 'kustomize', 'filename', 'output', 'for', 'timeout', 'type', 'patch', 'replicas', 'selector', 'audience'].map(
    (name) => `--${name}`,
  ),
);
/** Verbs that have others below them. */
const GROUPS = new Set(['create', 'rollout']);

/** The arguments of every call of kubectl on the page, as bash reads them: it runs the blocks with programs that only write them down. */
function recordCalls(): Promise<string[][]> {
  const inText = [...page.matchAll(/`(kubectl [^`]+)`/g)].map((match) => match[1] ?? '');
  const run = [...scripts.filter((script) => script.includes('kubectl')), ...inText];
  return withTemporaryFolder(async (folder) => {
    const calls = join(folder, 'calls');
    const programs = {
      // At once: the two ends of a pipe run side by side.
      kubectl: `printf -v call '%s\\x1f' "$@"; printf '%s\\x1e' "$call" >> '${calls}'`,
      secateur: ':',
    };
    for (const [name, body] of Object.entries(programs)) {
      await writeFile(join(folder, name), `#!/bin/bash\n${body}\n`);
      await chmod(join(folder, name), 0o755);
    }
    await writeFile(join(folder, 'secateur.dump'), '');
    for (const script of run) {
      const environment = { ...process.env, PATH: `${folder}:${process.env['PATH'] ?? ''}` };
      execFileSync('bash', ['-c', `${script}\nwait`], { cwd: folder, env: environment, stdio: 'ignore' });
    }
    const written = await readFile(calls, 'utf8');
    return written
      .split('\x1e')
      .slice(0, -1)
      .map((call) => call.split('\x1f').slice(0, -1));
  });
}

(kubectlProblem === undefined ? describe : describe.skip)('every call of kubectl', () => {
  let calls: string[][];
  let objects: (KubernetesObject & { spec?: { secretName?: string; ports?: { port: number }[] } })[];
  beforeAll(async () => {
    // What comes after -- is run in the pod.
    calls = (await recordCalls()).map((call) => (call.includes('--') ? call.slice(0, call.indexOf('--')) : call));
    objects = await buildManifests(join(kubernetesFolder, 'overlays/cluster'));
  });

  const help = (...args: readonly string[]): string => execFileSync('kubectl', args, { encoding: 'utf8' });
  const optionsIn = (text: string): string[] => [...text.matchAll(/^\s+(?:-\w, )?(--[a-z-]+)/gm)].map((match) => match[1] ?? '');
  /** A call without its options and their values: the verb and what it is about. */
  const wordsOf = (call: readonly string[]): string[] =>
    call.filter((word, index) => !word.startsWith('-') && !VALUED.has(call[index - 1] ?? ''));

  test('has a verb and options that kubectl has', () => {
    expect(calls.length).toBeGreaterThan(25);
    const everywhere = optionsIn(help('options'));
    for (const call of calls) {
      const [verb = '', below = ''] = wordsOf(call);
      const offered = optionsIn(
        help(verb, ...(GROUPS.has(verb) ? [below] : []), ...(below === 'secret' && verb === 'create' ? ['generic'] : []), '--help'),
      );
      const used = call.filter((word) => word.startsWith('--')).map((word) => word.split('=')[0] ?? '');
      expect([call.join(' '), offered.length > 0]).toEqual([call.join(' '), true]);
      expect([call.join(' '), used.filter((option) => !offered.includes(option) && !everywhere.includes(option))]).toEqual([
        call.join(' '),
        [],
      ]);
    }
  });

  test('names secrets that are used, or that certificates are kept in', async () => {
    const certified = objects.flatMap(({ kind, spec }) => (kind === 'Certificate' ? [spec?.secretName ?? ''] : []));
    const manifests = execFileSync('grep', ['-rh', 'secateur-', kubernetesFolder], { encoding: 'utf8' });
    const secrets = calls.map(wordsOf).flatMap(([verb, kind, ...names]) => (kind === 'secret' ? [{ verb, names }] : []));
    expect(secrets.length).toBeGreaterThan(3);
    for (const { verb, names } of secrets) {
      if (verb === 'create') expect(manifests).toContain(names[1] ?? 'no name');
      else expect(names.filter((name) => !certified.includes(name))).toEqual([]);
    }
    const keys = calls.flatMap((call) => call.flatMap((word) => /^--from-literal=([a-z-]+)=/.exec(word)?.[1] ?? []));
    const used = execFileSync('grep', ['-rhE', '(key|subPath):', kubernetesFolder], { encoding: 'utf8' });
    for (const key of new Set(keys)) expect(used).toMatch(new RegExp(`\\b${key}\\b`));
  });

  test('replaces the authority together with all that it certified, and restarts whoever has that', () => {
    const certified = objects.flatMap(({ kind, spec }) => (kind === 'Certificate' ? [spec?.secretName ?? ''] : []));
    const words = calls.map(wordsOf);
    const deleted = words.find(([verb, kind]) => verb === 'delete' && kind === 'secret')?.slice(2);
    expect(deleted?.sort()).toEqual(certified.sort());
    const users = (objects as readonly KubernetesObject[]).filter(
      (object) =>
        object.kind === 'StatefulSet' &&
        (object as Workload).spec.template.spec.volumes?.some(({ secret }) => certified.includes(secret?.secretName ?? '')),
    );
    const restarts = words.filter(([verb, below]) => verb === 'rollout' && below === 'restart').map(([, , ...names]) => names.sort());
    expect(restarts).toContainEqual(users.map(({ metadata }) => `statefulset/${metadata.name}`).sort());
  });

  test('selects pods by labels that they have, and asks for ports of services', () => {
    const selectors = calls.flatMap((call) => (call.includes('--selector') ? [call[call.indexOf('--selector') + 1] ?? ''] : []));
    const workloads = (objects as readonly KubernetesObject[]).filter(({ kind }) =>
      ['StatefulSet', 'Deployment'].includes(kind),
    ) as Workload[];
    const labels = workloads.flatMap(({ spec }) =>
      Object.entries(spec.template.metadata.labels).map(([name, value]) => `${name}=${value}`),
    );
    expect(selectors.length).toBeGreaterThan(0);
    for (const selector of selectors) expect(labels).toContain(selector);
    const forwards = calls.map(wordsOf).filter(([verb, object]) => verb === 'port-forward' && object !== undefined);
    expect(forwards.length).toBeGreaterThan(0);
    for (const [, object = '', port] of forwards) {
      const service = objects.find(({ kind, metadata }) => `${kind.toLowerCase()}/${metadata.name}` === object);
      expect(service?.spec?.ports?.map((known) => String(known.port))).toContain(port);
    }
  });
});
