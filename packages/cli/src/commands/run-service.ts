/** Runs a service until SIGTERM, SIGINT, or the end of the process that started it; a second signal ends it at once. */
export async function runService(run: (signal: AbortSignal, onListening: (address: string) => void) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(1);
    stop.abort();
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  process.once('disconnect', onSignal);
  await run(stop.signal, (address) => {
    if (process.send === undefined) process.stderr.write(`Listening on ${address}\n`);
    else process.send({ type: 'listening', address });
  });
  // The channel to the starting process would keep this one alive.
  if (process.connected) {
    process.off('disconnect', onSignal);
    process.disconnect();
  }
}
