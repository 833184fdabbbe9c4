import { describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { compileGlob } from './glob.js';

describe('compileGlob', () => {
  test.each([
    ['*.jsonl', ['a.jsonl', 'ä b.jsonl'], ['a.jsonl.gz', 'deep/a.jsonl', '.jsonl', '.a.jsonl']],
    ['part-?.txt', ['part-1.txt', 'part-😀.txt'], ['part-.txt', 'part-10.txt']],
    ['part-[0-35].txt', ['part-0.txt', 'part-2.txt', 'part-5.txt'], ['part-4.txt', 'part--.txt']],
    ['[!a-c]*', ['d.txt', 'A'], ['a.txt', '.d', 'x/d']],
    ['[]-]x', [']x', '-x'], ['x', 'ax']],
    ['[x.txt', ['[x.txt'], ['x.txt']],
    ['{a,b*,{c,d}e}.txt', ['a.txt', 'b.txt', 'bee.txt', 'ce.txt', 'de.txt'], ['e.txt', 'c.txt', '{a.txt']],
    ['{a}.{txt,}', ['{a}.txt', '{a}.'], ['a.txt']],
    ['\\*\\[a*', ['*[a', '*[ab'], ['x[a', '\\*[a']],
    ['*/*.txt', ['a/b.txt'], ['b.txt', 'a/b/c.txt', '.a/b.txt', 'a/.b.txt']],
    ['**', ['a', 'a/b/c'], ['.a', 'a/.b/c']],
    ['**/*.txt', ['a.txt', 'b/c/a.txt'], ['.b/a.txt', 'b/.a.txt', 'b/a.txt/c']],
    ['a/**/b/**/c', ['a/b/c', 'a/x/b/y/z/c', 'a/b/b/c/c'], ['a/c', 'a/b', 'b/a/b/c']],
    ['**/.cache/**/*a', ['.cache/a', 'x/.cache/y/ba'], ['x/a', '.cache/.a', '.x/.cache/a']],
  ])('%s', (glob, matching, others) => {
    const matches = compileGlob(glob)!;
    expect([...matching, ...others].filter(matches)).toEqual(matching);
  });

  test('is nothing for a path without wildcards', () => {
    expect(compileGlob('a+(b)@c!.txt')).toBeUndefined();
  });

  test('takes no longer for globs and names that fit in very many ways', () => {
    const name = 'a'.repeat(255);
    const globs = [`${'*a'.repeat(100)}b`, `${'*/**/'.repeat(100)}b`, `${'{a*,*a}'.repeat(9)}b`, '+(a*)+(a*)+(a*)+(a*)+(a*)b'];
    for (const glob of globs) expect(compileGlob(glob)!(`${`${name}/`.repeat(10)}${name}`)).toBe(false);
  });

  test('braces stand for a limited number of patterns', () => {
    expect(() => compileGlob('{a,b}'.repeat(64))).toThrow(
      new SecateurError('INVALID_DATA', `${'{a,b}'.repeat(64)}: its braces stand for more than 1000 patterns; use * for some.`),
    );
  });
});
