import type { ServiceProcess } from './cluster.js';

/** Less than anything takes that a pace is measured of: what is done between two stops would look fast. */
const RUNNING_MS = 5;

/** Lets a process run one part of so many of the time, as on a machine that has much else to do, until this is disposed of. */
export function slowDown({ pid }: ServiceProcess, times = 5): Disposable {
  const stoppedMs = RUNNING_MS * (times - 1);
  let timer: NodeJS.Timeout | undefined;
  const signal = (name: NodeJS.Signals): boolean => {
    try {
      return process.kill(pid, name);
    } catch {
      // It has ended.
      return false;
    }
  };
  const stop = (): void => {
    if (signal('SIGSTOP')) timer = setTimeout(goOn, stoppedMs);
  };
  const goOn = (): void => {
    if (signal('SIGCONT')) timer = setTimeout(stop, RUNNING_MS);
  };
  stop();
  return {
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      signal('SIGCONT');
    },
  };
}
