/** @typedef {{ passed: number, failed: number }} TestCounts */

/** @param {readonly TestCounts[]} counts @returns {TestCounts} */
export function addCounts(counts) {
  return counts.reduce((sum, { passed, failed }) => ({ passed: sum.passed + passed, failed: sum.failed + failed }), {
    passed: 0,
    failed: 0,
  });
}

/** @param {TestCounts} counts */
export function formatCounts({ passed, failed }) {
  return `${String(passed)} passed, ${String(failed)} failed`;
}

/**
 * A test file that could not be loaded counts as one failure.
 * @param {string} json what jest writes with --json
 * @returns {TestCounts}
 */
export function countJestTests(json) {
  const results = /** @type {{ numPassedTests: number, numFailedTests: number, numRuntimeErrorTestSuites: number }} */ (JSON.parse(json));
  return { passed: results.numPassedTests, failed: results.numFailedTests + results.numRuntimeErrorTestSuites };
}

/**
 * Counts the cases inside each test program by the summary that doctest prints. A program that ended badly without a failed case (a crash, a
 * sanitizer's finding, a leak at exit) counts as one failure. One that was skipped, which its output has the reason of, counts as nothing.
 * @param {string} junit what ctest writes with --output-junit
 * @returns {TestCounts}
 */
export function countCppTests(junit) {
  const programs = [...junit.matchAll(/<testcase\b([^>]*)>([\s\S]*?)<\/testcase>/g)];
  return addCounts(
    programs.map(([, attributes = '', output = '']) => {
      if (output.includes('<skipped')) return { passed: 0, failed: 0 };
      const summary = /\[doctest\] test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed/.exec(output);
      const counts = { passed: Number(summary?.[1] ?? 0), failed: Number(summary?.[2] ?? 0) };
      const ranWell = attributes.includes('status="run"') && summary !== null;
      return ranWell || counts.failed > 0 ? counts : addCounts([counts, { passed: 0, failed: 1 }]);
    }),
  );
}
