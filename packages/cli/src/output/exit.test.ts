import { expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { describeError, Interrupted } from './exit.js';

test('an error is its message', () => {
  expect(describeError(new SecateurError('NOT_FOUND', 'There is no job a.'))).toBe('secateur: There is no job a.\n');
  expect(describeError(new Interrupted('Stopped.'))).toBe('Stopped.\n');
  expect(describeError('odd')).toBe('secateur: odd\n');
});

test('wrong fields follow, one a line, unless the message tells them', () => {
  const violations = [
    { field: '--out', description: 'exists' },
    { field: '--seq-len', description: 'must be from 2' },
  ];
  const told = new SecateurError('INVALID_REQUEST', 'out exists; seq-len must be from 2.', { violations });
  expect(describeError(told)).toBe('secateur: out exists; seq-len must be from 2.\n');
  const untold = new SecateurError('INVALID_REQUEST', 'Wrong options:', { violations });
  expect(describeError(untold)).toBe('secateur: Wrong options:\n  --out exists\n  --seq-len must be from 2\n');
});

test('a cause that the message leaves out is told', () => {
  expect(describeError(new Error('No trace.', { cause: new Error('The disk is full.') }))).toBe('secateur: No trace. The disk is full.\n');
});

test('a cause of the system is not told again where the message explains its code', () => {
  const cause = Object.assign(new Error("ENOENT: no such file or directory, open '/a'"), { code: 'ENOENT' });
  expect(describeError(new Error('Cannot open /a: it does not exist (ENOENT).', { cause }))).toBe(
    'secateur: Cannot open /a: it does not exist (ENOENT).\n',
  );
});
