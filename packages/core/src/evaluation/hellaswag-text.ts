import type { RecordFields } from './record-fields.js';

/** Takes out what the WikiHow part of HellaSwag was marked up with. */
export function cleanHellaswagText(text: string): string {
  return text
    .trim()
    .replaceAll(' [title]', '. ')
    .replaceAll(/\[[^\n]*?\]/g, '')
    .replaceAll('  ', ' ');
}

/**
 * Activity and context. The data set has the context in two parts, of which the second begins a sentence in lower case; files without the
 * parts have the whole as `query`, which is taken as it is.
 */
export function hellaswagPrompt(fields: RecordFields): string {
  if (!fields.has('ctx_a')) return cleanHellaswagText(fields.text('query'));
  return cleanHellaswagText(`${fields.text('activity_label')}: ${fields.text('ctx_a')} ${capitalize(fields.text('ctx_b'))}`);
}

/** The first character in upper case and all others in lower case. */
function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  return first.toUpperCase() + rest.join('').toLowerCase();
}
