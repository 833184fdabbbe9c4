import { describe, expect, test } from '@jest/globals';
import { describeMissing, isAtLeast, isDebianLike, parseVersion, requirements } from './system-packages.mjs';

describe('versions', () => {
  test.each([
    ['g++ (Debian 12.2.0-14+deb12u1) 12.2.0', [12, 2, 0]],
    ['cmake version 3.25.1\n\nCMake suite maintained and supported by Kitware', [3, 25, 1]],
    ['Apple clang version 15.0.0 (clang-1500.3.9.4)', [15, 0, 0]],
    ['Debian clang-format version 14.0.6', [14, 0, 6]],
    ['v20.19.0', [20, 19, 0]],
    ['no number', undefined],
  ])('%j is read', (text, version) => {
    expect(parseVersion(text)).toEqual(version);
  });

  test.each([
    [[20, 19, 0], [20, 19], true],
    [[20, 18, 9], [20, 19], false],
    [[22], [20, 19], true],
    [[3, 5], [3, 21], false],
    [[3], [3, 21], false],
    [[14], [14], true],
  ])('%j is at least %j: %p', (version, minimum, expected) => {
    expect(isAtLeast(version, minimum)).toBe(expected);
  });
});

test.each([
  ['PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', true],
  ['ID=ubuntu\nID_LIKE=debian\n', true],
  ['ID=linuxmint\nID_LIKE="ubuntu debian"\n', true],
  ['ID=fedora\nVARIANT_ID=container\n', false],
  ['NAME="not debian"\nID=alpine\n', false],
  ['', false],
])('%j is of the Debian family: %p', (osRelease, expected) => {
  expect(isDebianLike(osRelease)).toBe(expected);
});

test('one message names everything missing, why, and the command of each system', () => {
  const missing = requirements.filter(({ purpose }) => purpose === 'build').map((requirement) => ({ requirement, problem: 'not found' }));
  const message = describeMissing(missing);
  for (const { requirement } of missing) expect(message).toContain(`- ${requirement.what}: not found`);
  expect(message).toContain('sudo apt-get install g++ cmake make libdnnl-dev\n');
  expect(message).toContain('sudo dnf install gcc-c++ cmake make onednn-devel\n');
  expect(message).toMatch(/brew install cmake onednn$/);
});
