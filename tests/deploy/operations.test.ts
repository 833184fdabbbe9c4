/** The commands in docs/operations.md name files, objects and options that there are; CI has no cluster to run them on. */
import { execFileSync } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { findShellBlocks } from '../../scripts/lib/shell-blocks.mjs';
import { runCommand } from '../support/command.js';
import { buildManifests, kubectlProblem, kubernetesFolder } from '../support/manifests.js';
import { repositoryRoot } from '../support/paths.js';

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
