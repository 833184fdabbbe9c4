/**
 * The raw files of WikiText as one text, the way perplexities on it are measured everywhere: their lines are rows that keep their line feed,
 * blank ones are empty, and a blank line stands between rows.
 */
export function joinWikiTextRows(raw: string): string {
  const rows = raw.split(/(?<=\n)/);
  return rows.map((row) => (row.trim() === '' ? '' : row)).join('\n\n');
}
