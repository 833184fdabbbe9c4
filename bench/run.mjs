// Measures the engine, the wire and the whole command, each beside a peer or a limit in the same run.
//   npm run bench                 prints the tables
//   npm run bench -- --write      also puts them into docs/performance.md
//   npm run bench -- fetch        only one of: engine, fetch, jobs, prune, queue, scale
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { benchEngine } from './engine.mjs';
import { benchFetch } from './fetch.mjs';
import { benchJobs } from './jobs.mjs';
import { benchPrune } from './prune.mjs';
import { benchQueue } from './queue.mjs';
import { benchScale } from './scale.mjs';
import { writeSection } from './write-section.mjs';

const benches = { engine: benchEngine, fetch: benchFetch, jobs: benchJobs, prune: benchPrune, queue: benchQueue, scale: benchScale };
const args = process.argv.slice(2);
const write = args.includes('--write');
const chosen = args.filter((argument) => argument !== '--write');
const unknown = chosen.find((name) => !Object.hasOwn(benches, name));
if (unknown !== undefined) {
  console.error(`There is no benchmark ${unknown}; choose ${Object.keys(benches).join(', ')}.`);
  process.exit(2);
}

const page = join(workspaceRoot, 'docs/performance.md');
for (const [name, bench] of Object.entries(benches)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  for (const [table, text] of Object.entries(await bench())) {
    console.log(`\n${table}\n${text}`);
    if (!write) continue;
    writeFileSync(page, writeSection(readFileSync(page, 'utf8'), table, text));
  }
}
