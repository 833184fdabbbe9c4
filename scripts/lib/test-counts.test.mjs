import { expect, test } from '@jest/globals';
import { addCounts, countCppTests, countJestTests, formatCounts } from './test-counts.mjs';

/** @param {string} status @param {string} output */
const program = (status, output) => `
	<testcase name="engine" classname="engine" time="0.1" status="${status}">
		<properties/>
		<system-out>${output}</system-out>
	</testcase>`;
const summary = (/** @type {number} */ passed, /** @type {number} */ failed) =>
  `[doctest] test cases: ${passed + failed} | ${passed} passed | ${failed} failed | 0 skipped\n[doctest] assertions: 99 | 99 passed | 0 failed |`;

test.each([
  ['cases are counted, not programs', program('run', summary(12, 0)) + program('run', summary(3, 0)), { passed: 15, failed: 0 }],
  ['failed cases', program('fail', summary(4, 2)), { passed: 4, failed: 2 }],
  ['a crash before the summary', program('fail', 'AddressSanitizer: heap-buffer-overflow'), { passed: 0, failed: 1 }],
  ['a leak found after all cases passed', program('fail', `${summary(5, 0)} LeakSanitizer: detected`), { passed: 5, failed: 1 }],
  ['a program that says nothing', program('run', ''), { passed: 0, failed: 1 }],
  ['a program that was skipped', program('notrun', '<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'), { passed: 0, failed: 0 }],
  ['no program', '<testsuite></testsuite>', { passed: 0, failed: 0 }],
])('C++: %s', (_name, junit, counts) => {
  expect(countCppTests(junit)).toEqual(counts);
});

test('jest: a file that could not be loaded counts as failed', () => {
  const json = JSON.stringify({ numPassedTests: 7, numFailedTests: 1, numPendingTests: 2, numRuntimeErrorTestSuites: 1 });
  expect(countJestTests(json)).toEqual({ passed: 7, failed: 2 });
});

test('the sum is printed in one line', () => {
  expect(
    formatCounts(
      addCounts([
        { passed: 15, failed: 0 },
        { passed: 7, failed: 2 },
      ]),
    ),
  ).toBe('22 passed, 2 failed');
});
