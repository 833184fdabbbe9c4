import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { peakResidentBytes } from './peak-resident-bytes.js';

const MIB = 2 ** 20;

/** The system adds up the pages of each processor now and then. */
const INEXACT_BYTES = 2 * MIB;

test('is what this process has had, also when it has less again', () => {
  const bytes = Buffer.alloc(64 * MIB, 1).byteLength;
  const residentBytes = process.memoryUsage().rss;
  const peak = peakResidentBytes();
  expect(peak).toBeGreaterThan(bytes);
  expect(peak).toBeGreaterThan(residentBytes - INEXACT_BYTES);
});

test('leaves out what the parent had when it started the process', () => {
  const large = Buffer.alloc(300 * MIB, 1);
  const module = join(import.meta.dirname, '../../dist/machine/peak-resident-bytes.js');
  const script = `import(${JSON.stringify(module)}).then(({ peakResidentBytes }) => console.log(peakResidentBytes()))`;
  const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  expect(Number(stdout)).toBeGreaterThan(20 * MIB);
  expect(Number(stdout)).toBeLessThan(large.byteLength / 2);
});
