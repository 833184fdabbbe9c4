import { unwatchFile, watchFile } from 'node:fs';

/** How often files are looked at. Notifications of the system miss files behind links that are exchanged, as Kubernetes mounts secrets. */
const LOOK_EVERY_MS = 1_000;

/**
 * Calls `onChange`, which does not fail, whenever one of the files has changed, one call after the other, until disposed. Does not keep the
 * process alive.
 */
export function watchFiles(paths: readonly string[], onChange: () => Promise<void>): Disposable {
  let last = Promise.resolve();
  const listener = (): void => {
    last = last.then(onChange);
  };
  // A process may have any number of connections with the same files.
  for (const path of paths) watchFile(path, { interval: LOOK_EVERY_MS, persistent: false }, listener).setMaxListeners(0);
  return {
    [Symbol.dispose]: () => {
      for (const path of paths) unwatchFile(path, listener);
    },
  };
}
