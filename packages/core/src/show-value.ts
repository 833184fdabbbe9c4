const MAXIMUM_LENGTH = 200;

/** A value of a JSON text as errors show it: never long, whatever it is. */
export function showValue(value: unknown): string {
  const text = toText(value);
  return text.length > MAXIMUM_LENGTH ? `${text.slice(0, MAXIMUM_LENGTH)}…` : text;
}

function toText(value: unknown): string {
  try {
    return value === undefined ? 'nothing' : JSON.stringify(value);
  } catch {
    // JSON.parse reads any depth, JSON.stringify does not.
    return 'nested too deeply to be shown';
  }
}
