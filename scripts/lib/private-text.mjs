// A repository must read and build the same everywhere: nothing in it may point at one developer's machine or network.
const patterns = [
  // Absolute paths below somebody's home or work folder.
  /(?<![\w.$}/-])\/(?:work|root|home\/[a-z][\w-]*|Users\/[A-Za-z][\w-]*)\/[\w.-]+/g,
  // Package registries and mirrors other than the public ones.
  /https?:\/\/(?!registry\.npmjs\.org)[\w.-]*(?:registry|artifactory|nexus|jfrog|verdaccio|mirror|proxy)[\w.-]*/g,
  // Addresses of private networks.
  /https?:\/\/(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+/g,
];

/**
 * @param {Buffer} content of a file; one with a zero byte near its start is not text
 * @returns {string[]} the places found, each as `line N: text`
 */
export function findPrivateText(content) {
  if (content.subarray(0, 8192).includes(0)) return [];
  const text = content.toString('utf8');
  return patterns.flatMap((pattern) =>
    [...text.matchAll(pattern)].map((match) => `line ${text.slice(0, match.index).split('\n').length}: ${match[0]}`),
  );
}

/**
 * A lock file names packages and their hashes; each machine has its own registry.
 * @param {string} lockfile
 */
export function findLockedAddresses(lockfile) {
  return [...lockfile.matchAll(/"resolved": "(?:https?|git\+\w+|file):[^"]*"/g)].map(([address]) => address);
}
