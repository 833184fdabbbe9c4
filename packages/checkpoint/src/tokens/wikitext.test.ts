import { expect, test } from '@jest/globals';
import { joinWikiTextRows } from './wikitext.js';

test('rows keep their line feed, blank ones are empty, and a blank line stands between them', () => {
  const raw = ' \n = Robert Boulter = \n \n He acts . \n';
  expect(joinWikiTextRows(raw)).toBe('\n\n = Robert Boulter = \n\n\n\n\n He acts . \n');
});
