/** Version of all packages and of what they report. */
export const VERSION = '0.1.0';

/** Whether processes of these versions may work on one job: those of the same MAJOR.MINOR compute the same bytes (docs/versioning.md). */
export function worksWith(version: string, other: string): boolean {
  const minor = (text: string): string => text.split('.', 2).join('.');
  return minor(version) === minor(other);
}
