import { setMaxListeners } from 'node:events';
import { ExitCode, Interrupted } from '../output/exit.js';

/**
 * Runs work that Ctrl-C, SIGTERM and SIGHUP ask to stop by aborting its signal. A second one ends the process at once.
 * Work that fails after it was asked to stop has been interrupted, whatever the failure.
 */
export async function withInterruption<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const stop = new AbortController();
  // Every process and every call that is begun listens.
  setMaxListeners(0, stop.signal);
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(ExitCode.INTERRUPTED);
    process.stderr.write('Stopping; press Ctrl-C again to end at once.\n');
    stop.abort();
  };
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of names) process.on(name, onSignal);
  try {
    return await work(stop.signal);
  } catch (error) {
    if (!stop.signal.aborted || error instanceof Interrupted) throw error;
    throw new Interrupted('Stopped.', { cause: error });
  } finally {
    for (const name of names) process.off(name, onSignal);
  }
}
