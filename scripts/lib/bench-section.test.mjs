import { describe, expect, test } from '@jest/globals';
import { writeSection } from '../../bench/write-section.mjs';

const page = 'a\n<!-- bench:one -->\n<!-- /bench -->\nb\n<!-- bench:two -->\n\nold\n\n<!-- /bench -->\nc\n';

describe('writeSection', () => {
  test('fills an empty section and leaves everything after it', () => {
    expect(writeSection(page, 'one', 'new')).toBe(page.replace('-->\n<!-- /bench -->\nb', '-->\n\nnew\n\n<!-- /bench -->\nb'));
  });

  test('replaces a filled section, again and again', () => {
    const once = writeSection(page, 'two', 'new');
    expect(once).toBe(page.replace('old', 'new'));
    expect(writeSection(once, 'two', 'new')).toBe(once);
  });

  test('takes a text as it is', () => {
    expect(writeSection(page, 'two', '$1 $& costs')).toContain('\n$1 $& costs\n');
  });

  test('refuses a page without the section or its end', () => {
    expect(() => writeSection(page, 'three', 'new')).toThrow(/bench:three/);
    expect(() => writeSection('<!-- bench:one -->\n<!-- bench:two -->\n<!-- /bench -->', 'one', 'new')).toThrow(/bench:one/);
  });
});
