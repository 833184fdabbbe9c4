import { describe, expect, test } from '@jest/globals';
import { ShardSources } from './shard-sources.js';

function content(...resources: string[]): { readonly resource: string }[] {
  return resources.map((resource) => ({ resource }));
}

const FIRST = content('norm', 'weight');
const NEXT = content('other norm', 'other weight');

describe('members that load a shard', () => {
  test('stand in one line', () => {
    const sources = new ShardSources<string>();
    expect(['a', 'b', 'c'].map((member) => sources.begin(member, FIRST))).toEqual([undefined, 'a', 'b']);
    // Whoever is first with the next block begins another line.
    expect(['b', 'a'].map((member) => sources.begin(member, NEXT))).toEqual([undefined, 'b']);
    expect(sources.begin('d', FIRST)).toBe('c');
  });

  test('pull from this process what they had begun before, and keep their place', () => {
    const sources = new ShardSources<string>();
    for (const member of ['a', 'b']) sources.begin(member, FIRST);
    expect(sources.begin('a', FIRST)).toBeUndefined();
    expect(sources.begin('c', FIRST)).toBe('b');
  });

  test('pull from nobody that is gone, or has another content', () => {
    const sources = new ShardSources<string>();
    for (const member of ['a', 'b']) sources.begin(member, FIRST);
    sources.remove('b');
    expect(sources.begin('c', FIRST)).toBe('a');
    expect(sources.begin('d', content('norm', 'pruned weight'))).toBeUndefined();
  });
});
