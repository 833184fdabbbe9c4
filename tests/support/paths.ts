import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const repositoryRoot = fileURLToPath(new URL('../../', import.meta.url));
export const commandPath = join(repositoryRoot, 'packages/cli/bin/secateur.js');

export const MODELS = ['books-qwen2', 'books-opt', 'books-llama'] as const;
export type ModelName = (typeof MODELS)[number];

export function modelPath(model: ModelName): string {
  return join(repositoryRoot, 'examples/models', model);
}

/** Path below tests/fixtures. */
export function fixturePath(...parts: string[]): string {
  return join(repositoryRoot, 'tests/fixtures', ...parts);
}

export interface TemporaryFolder {
  readonly path: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A folder that is removed when it is disposed. */
export async function temporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), 'secateur-test-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Runs work in a folder of its own, removed afterwards. */
export async function withTemporaryFolder<Result>(work: (folder: string) => Promise<Result>): Promise<Result> {
  await using folder = await temporaryFolder();
  return await work(folder.path);
}
