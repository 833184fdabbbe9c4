/** What secrets look like inside of texts, and what stays of them. Texts may be long and hostile: none may take time that grows with the square. */
const SECRETS: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  [/\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}/gi, '$1 [hidden]'],
  [/\bsecateur_[A-Za-z0-9_-]{20,}/g, 'secateur_[hidden]'],
  // The password of a URL.
  [/(\b[a-z][a-z0-9+.-]{0,30}:\/\/[^\s:@/"']*):[^\s@/"']+@/gi, '$1:[hidden]@'],
  [/-----BEGIN ([A-Z ]*)PRIVATE KEY-----[^"]*?(?:-----END \1PRIVATE KEY-----|(?=")|$)/g, '[hidden private key]'],
];

/** The text without tokens, passwords and keys. */
export function hideSecrets(text: string): string {
  return SECRETS.reduce((shown, [pattern, replacement]) => shown.replace(pattern, replacement), text.replace(DOTTED, hideWebToken));
}

/** Where JSON Web Tokens can be: what stands before one may look like a part of it. */
const DOTTED = /(?<![\w.-])[\w.-]+/g;

function hideWebToken(run: string): string {
  const start = run.search(/\beyJ/);
  return start === -1 || run.split('.', 3).length < 3 ? run : `${run.slice(0, start)}[hidden]`;
}
