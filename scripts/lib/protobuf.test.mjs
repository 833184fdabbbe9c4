import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { findBreakingChanges } from './protobuf.mjs';
import { workspaceRoot } from './workspace-root.mjs';

/** What is found when this is replaced in the service. @param {string | RegExp} part @param {string} replacement */
async function changeService(part, replacement) {
  const folder = mkdtempSync(join(tmpdir(), 'secateur-breaking-'));
  try {
    for (const name of ['buf.yaml', 'google', 'secateur'])
      cpSync(join(workspaceRoot, 'proto', name), join(folder, name), { recursive: true });
    const file = join(folder, 'secateur/v1/pruning_service.proto');
    const before = readFileSync(file, 'utf8');
    const after = before.replace(part, replacement);
    expect(after).not.toBe(before);
    writeFileSync(file, after);
    return await findBreakingChanges(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a new field and a new method break nothing', async () => {
  const added =
    'rpc Sleep(GetJobRequest) returns (GetJobResponse) {\n    option (google.api.http) = {get: "/v1/sleep"};\n  }\n  // Reads a job.';
  expect(await changeService('message ListNodesRequest {}', 'message ListNodesRequest { bool all = 1; }')).toEqual([]);
  expect(await changeService('// Reads a job.', added)).toEqual([]);
});

test.each([
  ['a field that is gone', 'string next_page_token = 2;', '', 'next_page_token'],
  ['a field of another type', 'uint32 page_size = 1;', 'string page_size = 1;', 'page_size'],
  ['a field of another name, which is another key in JSON', 'uint32 page_size = 1;', 'uint32 page_length = 1;', 'page_size'],
  ['a method that is gone', /  \/\/ Lists the kernel nodes[^}]*};\n  }\n/, '', 'ListNodes'],
  ['another path', '"/v1/nodes"', '"/v1/kernel-nodes"', 'GET /v1/nodes of secateur.v1.PruningService/ListNodes'],
])('%s is found', async (_what, part, replacement, found) => {
  expect((await changeService(part, replacement)).join('\n')).toContain(found);
});

test('the newest release of the clone is what counts, not a later commit or another tag', async () => {
  const repository = mkdtempSync(join(tmpdir(), 'secateur-releases-'));
  /** @param {string[]} args */
  const git = (...args) => execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.com', ...args], { cwd: repository });
  const file = join(repository, 'proto/secateur/v1/pruning_service.proto');
  /** @param {string} field @param {string} tag */
  const release = (field, tag) => {
    const text = readFileSync(file, 'utf8').replace(/message ListNodesRequest {[^}]*}/, `message ListNodesRequest { ${field} }`);
    writeFileSync(file, text);
    git('add', '.');
    git('commit', '--quiet', '--message', tag);
    git('tag', tag);
  };
  try {
    git('init', '--quiet');
    for (const name of ['buf.yaml', 'google', 'secateur'])
      cpSync(join(workspaceRoot, 'proto', name), join(repository, 'proto', name), { recursive: true });
    release('bool first = 1;', 'v0.9.0');
    release('bool first = 1; bool second = 2;', 'v0.10.0');
    release('bool first = 1; bool second = 2; bool third = 3;', 'v0.11.0-rc.1');
    release('bool first = 1;', 'nightly');
    const found = (await findBreakingChanges(join(repository, 'proto'), repository)).join('\n');
    expect(found).toContain('second');
    expect(found).not.toContain('third');
  } finally {
    rmSync(repository, { recursive: true });
  }
});
