// Runs the `sh` blocks of every Markdown file of the repository, each in its own bash from the root, so that what the documents say works.
// A block that CI cannot run has a comment above it: <!-- not run in CI: reason -->. The last line is `N passed, N failed`.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCommand } from './lib/run-command.mjs';
import { findShellBlocks } from './lib/shell-blocks.mjs';
import { formatCounts } from './lib/test-counts.mjs';
import { workspaceRoot } from './lib/workspace-root.mjs';

const timeoutSeconds = '300';
const counts = { passed: 0, failed: 0 };

// Also those that are not committed yet, but none that a build has left.
const listing = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '*.md'];
const pages = execFileSync('git', listing, { cwd: workspaceRoot, encoding: 'utf8' }).split('\0').filter(Boolean);
// The README first: others go on with what it has made.
for (const page of ['README.md', ...pages.filter((name) => name !== 'README.md')]) {
  for (const { line, script, skipReason } of findShellBlocks(readFileSync(join(workspaceRoot, page), 'utf8'))) {
    const place = `${page}:${line}`;
    if (skipReason !== undefined) {
      console.log(`skipped  ${place} (${skipReason})`);
      continue;
    }
    const startedMs = performance.now();
    // What a block leaves running in the background ends with it.
    const prelude = "trap 'jobs -p | xargs -r kill 2> /dev/null || true' EXIT";
    const command = ['--kill-after=10', timeoutSeconds, 'bash', '-euo', 'pipefail', '-c', `${prelude}\n${script}`];
    const { code, output } = await runCommand('timeout', command, { quiet: true });
    counts[code === 0 ? 'passed' : 'failed'] += 1;
    console.log(`${code === 0 ? 'passed ' : 'FAILED '}  ${place} (${((performance.now() - startedMs) / 1000).toFixed(1)} s)`);
    if (code !== 0) console.log(`${script}\n${output.trimEnd()}\nexit code ${code}`);
  }
}

console.log(formatCounts(counts));
if (counts.failed > 0) process.exitCode = 1;
