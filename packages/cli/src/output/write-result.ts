/** The result of a command on stdout: exactly one JSON document with --json, else text for people. */
export function writeResult(json: boolean | undefined, document: object, text: () => string): void {
  process.stdout.write(json === true ? `${JSON.stringify(document, undefined, 2)}\n` : text());
}
