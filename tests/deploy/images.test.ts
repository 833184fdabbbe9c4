/** The Dockerfile is sound, and what it puts into the images is enough to run. No engine builds the images here. */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, readFile, stat, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { DockerfileParser, type Copy, type Dockerfile, type From } from 'dockerfile-ast';
import { ServiceProcess } from '../support/cluster.js';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const folder = join(repositoryRoot, 'deploy/docker');
const dockerfile: Dockerfile = DockerfileParser.parse(await readFile(join(folder, 'Dockerfile'), 'utf8'));

interface Stage {
  readonly name: string;
  readonly base: string;
  readonly instructions: readonly { readonly keyword: string; readonly text: string }[];
  readonly copies: readonly Copy[];
}

const stages: Stage[] = [];
for (const instruction of dockerfile.getInstructions()) {
  if (instruction.getKeyword() === 'FROM') {
    const from = instruction as From;
    stages.push({ name: from.getBuildStage() ?? '', base: from.getImage() ?? '', instructions: [], copies: [] });
  }
  const stage = stages.at(-1) as { instructions: object[]; copies: Copy[] } | undefined;
  stage?.instructions.push({ keyword: instruction.getKeyword(), text: instruction.getTextContent() });
  if (instruction.getKeyword() === 'COPY') stage?.copies.push(instruction as Copy);
}

const values = (stage: Stage, keyword: string): string[] =>
  stage.instructions.filter((instruction) => instruction.keyword === keyword).map(({ text }) => text.slice(keyword.length).trim());

describe('the Dockerfile', () => {
  test('takes base images by arguments that name a version and its digest', () => {
    const names = stages.map(({ name }) => name);
    const args = new Map(dockerfile.getInitialARGs().map((arg) => [arg.getProperty()?.getName(), arg.getProperty()?.getValue()]));
    for (const { base } of stages) {
      const argument = /^\$\{(\w+)\}$/.exec(base)?.[1];
      if (argument === undefined) expect(names).toContain(base);
      else expect(args.get(argument)).toMatch(/^[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+@sha256:[0-9a-f]{64}$/);
    }
  });

  test.each(['cpu', 'cuda'])('makes %s an image that needs no root and no place to write', (name) => {
    const stage = stages.find((each) => each.name === name)!;
    expect(values(stage, 'USER')).toEqual(['65532:65532']);
    expect(JSON.parse(values(stage, 'ENTRYPOINT')[0] ?? '')).toEqual(['/usr/local/bin/node', '/opt/secateur/packages/cli/bin/secateur.js']);
    // Nothing but /tmp is written to.
    expect(values(stage, 'WORKDIR')).toEqual(['/tmp']);
    expect(values(stage, 'ENV').join(' ')).toContain('HOME=/tmp');
    // No compiler, no npm cache, no sources: all comes from other stages.
    for (const copy of stage.copies) expect(copy.getFromFlag()?.getValue()).toMatch(/^(node|javascript|(cpu|cuda)-engine)$/);
  });

  test('copies what is there', async () => {
    const fromContext = stages.flatMap(({ copies }) => copies.filter((copy) => copy.getFromFlag() === null));
    const sources = fromContext.flatMap((copy) =>
      copy
        .getArguments()
        .slice(0, -1)
        .map((argument) => argument.getValue()),
    );
    expect(sources.length).toBeGreaterThan(3);
    for (const source of sources) await stat(join(repositoryRoot, source));
    // Its own ignore file leaves everything out but what is named.
    const ignored = (await readFile(join(folder, 'Dockerfile.dockerignore'), 'utf8')).split('\n').filter((line) => !line.startsWith('#'));
    expect(ignored[0]).toBe('*');
    for (const source of sources) if (source !== '.') expect(ignored).toContain(`!${source}`);
  });

  test('builds from the lockfile', () => {
    const runs = stages.flatMap((stage) => values(stage, 'RUN')).join('\n');
    expect(runs).toContain('npm ci --ignore-scripts');
    expect(runs).toContain('npm ci --omit=dev --ignore-scripts');
    expect(runs).not.toMatch(/npm (install|i)\b/);
  });
});

test('the files of the image run an orchestrator and a kernel node', () =>
  withTemporaryFolder(async (target) => {
    execFileSync(process.execPath, [join(folder, 'collect-runtime.mjs'), target]);
    // What `npm ci --omit=dev` installs, linked to what is installed here.
    const lock = JSON.parse(await readFile(join(target, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { dev?: boolean; devOptional?: boolean; link?: boolean; resolved?: string }>;
    };
    for (const [path, { dev, link, resolved = '' }] of Object.entries(lock.packages)) {
      if (!path.includes('node_modules/') || dev === true) continue;
      // One inside another comes with it.
      if (path.split('node_modules/').length > 2) continue;
      await mkdir(dirname(join(target, path)), { recursive: true });
      await symlink(link === true ? join(target, resolved) : join(repositoryRoot, path), join(target, path));
    }
    const addon = 'native/cuda/build/Release/secateur_native.node';
    await mkdir(dirname(join(target, addon)), { recursive: true });
    await copyFile(join(repositoryRoot, addon), join(target, addon));
    const command = join(target, 'packages/cli/bin/secateur.js');
    expect(execFileSync(process.execPath, [command, '--version'], { encoding: 'utf8', env: {} }).trim()).toBe('0.1.0');

    const start = (args: readonly string[]): ReturnType<typeof ServiceProcess.start> => ServiceProcess.start(args, {}, command);
    const node = await start(['node', '--listen', '127.0.0.1:0', '--threads', '1', '--memory', '1GiB', '--backend', 'cpu']);
    const serve = await start(['serve', '--listen', '127.0.0.1:0', '--node', node.address, '--root', target, '--state', 'memory']);
    const client = PruningClient.connect(serve.address);
    try {
      await client.waitForReady(10_000);
      expect((await client.listNodes()).map(({ address }) => address)).toEqual([node.address]);
    } finally {
      client.close();
      await serve.process.signal('SIGTERM');
      await node.process.signal('SIGTERM');
    }
  }));
