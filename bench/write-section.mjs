/**
 * A page with the text between `<!-- bench:NAME -->` and the next `<!-- /bench -->` replaced; the markers may stand on neighbouring lines.
 * Throws when the page has no such section, so that no figure is lost silently.
 * @param {string} page
 * @param {string} name
 * @param {string} text
 */
export function writeSection(page, name, text) {
  const open = `<!-- bench:${name} -->`;
  const close = '<!-- /bench -->';
  const start = page.indexOf(open);
  const end = start === -1 ? -1 : page.indexOf(close, start);
  const next = start === -1 ? -1 : page.indexOf('<!-- bench:', start + open.length);
  if (end === -1 || (next !== -1 && next < end)) throw new Error(`The page has no section ${open} … ${close}.`);
  return `${page.slice(0, start + open.length)}\n\n${text}\n\n${page.slice(end)}`;
}
