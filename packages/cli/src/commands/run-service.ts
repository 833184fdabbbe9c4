/** A service that has not stopped so long after its running work was due to end is ended. */
const STOP_LIMIT_MS = 30_000;

/**
 * Runs a service until SIGTERM, SIGINT, or the end of the process that started it, after which its running work has `drainTimeoutMs` to end;
 * a second signal ends it at once.
 */
export async function runService(
  run: (signal: AbortSignal, onListening: (address: string, httpAddress: string | undefined) => void) => Promise<void>,
  drainTimeoutMs = 0,
): Promise<void> {
  const limitMs = drainTimeoutMs + STOP_LIMIT_MS;
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(1);
    stop.abort();
    setTimeout(() => {
      process.stderr.write(`Ended without draining: that took longer than ${limitMs / 1000} s.\n`);
      process.exit(1);
    }, limitMs).unref();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.once('disconnect', onSignal);
  const startedByProcess = process.send !== undefined;
  // The starting process may have gone while this one was loading.
  if (startedByProcess && !process.connected) return;
  try {
    await run(stop.signal, (address, httpAddress) => {
      const http = httpAddress === undefined ? '' : `, HTTP on ${httpAddress}`;
      if (!startedByProcess) process.stderr.write(`Listening on ${address}${http}\n`);
      // An error means that the starting process is gone, which `disconnect` tells as well.
      else process.send?.({ type: 'listening', address, httpAddress }, undefined, undefined, () => undefined);
    });
  } finally {
    // The channel to the starting process would keep this one alive.
    process.off('disconnect', onSignal);
    if (process.connected) process.disconnect();
  }
}
