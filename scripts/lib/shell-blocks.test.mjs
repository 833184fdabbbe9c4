import { expect, test } from '@jest/globals';
import { findShellBlocks } from './shell-blocks.mjs';

const document = `# Title

\`\`\`sh
npm run demo
npx secateur inspect out
\`\`\`

<!-- not run in CI: needs a cluster -->

\`\`\`sh
kubectl get pods
\`\`\`

\`\`\`text
\`\`\`sh is not opened inside another block
\`\`\`

<!-- not run in CI: belongs to nothing -->
Some prose in between.
\`\`\`sh
npm test
\`\`\`
`;

test('sh blocks are found with their line and the reason to skip them', () => {
  expect(findShellBlocks(document)).toEqual([
    { line: 3, script: 'npm run demo\nnpx secateur inspect out' },
    { line: 10, script: 'kubectl get pods', skipReason: 'needs a cluster' },
    { line: 20, script: 'npm test' },
  ]);
});

test('a document without blocks has none', () => {
  expect(findShellBlocks('`sh`\n')).toEqual([]);
});
