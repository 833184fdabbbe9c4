/** Runs targets one after the other:  main.ts SECONDS SEED FINDINGS TARGET…  A line of JSON for each are its figures. `main.ts` alone lists them. */
import { fileURLToPath } from 'node:url';
import { fuzz } from './engine/fuzz.js';
import { TARGETS } from './targets/index.js';

const [seconds, seed, findings = '', ...names] = process.argv.slice(2);
if (names.length === 0) console.log(JSON.stringify([...TARGETS.keys()]));
for (const name of names) {
  const target = TARGETS.get(name);
  if (target === undefined) throw new Error(`There is no target ${name}; there are ${[...TARGETS.keys()].join(', ')}.`);
  const corpus = fileURLToPath(new URL(`corpus/${name}`, import.meta.url));
  const figures = await fuzz(target, { name, seconds: Number(seconds), seed: Number(seed), corpus, findings });
  console.log(JSON.stringify({ name, ...figures }));
}
// Handles of what was fuzzed do not keep this process.
process.exit();
