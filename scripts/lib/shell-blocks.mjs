/**
 * @typedef {object} ShellBlock
 * @property {number} line of the opening fence, from 1
 * @property {string} script
 * @property {string} [skipReason] why CI does not run it
 */

const fence = /^(`{3,})(\w*)\s*$/;
const skipComment = /^<!--\s*not run in CI:\s*(.+?)\s*-->$/;

/**
 * The fenced `sh` blocks of a Markdown document. A comment `<!-- not run in CI: reason -->` above a block, blank lines aside, keeps CI from
 * running it.
 * @param {string} markdown
 * @returns {ShellBlock[]}
 */
export function findShellBlocks(markdown) {
  const lines = markdown.split('\n');
  /** @type {ShellBlock[]} */
  const blocks = [];
  /** @type {string | undefined} */
  let skipReason;
  for (let index = 0; index < lines.length; index += 1) {
    const line = lines[index]?.trim() ?? '';
    const opening = fence.exec(line);
    if (opening === null) {
      skipReason = skipComment.exec(line)?.[1] ?? (line === '' ? skipReason : undefined);
      continue;
    }
    const closing = lines.findIndex((text, later) => later > index && text.trim() === opening[1]);
    const end = closing === -1 ? lines.length : closing;
    const script = lines.slice(index + 1, end).join('\n');
    if (opening[2] === 'sh') blocks.push({ line: index + 1, script, ...(skipReason === undefined ? {} : { skipReason }) });
    skipReason = undefined;
    index = end;
  }
  return blocks;
}
