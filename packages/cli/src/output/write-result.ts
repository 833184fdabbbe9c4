/** The result of a command on stdout: exactly one JSON document with --json, else text for people. */
export function writeResult(json: boolean, document: object, text: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(document, undefined, 2)}\n` : text());
}
