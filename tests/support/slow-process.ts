import type { ServiceProcess } from './cluster.js';

const STOPPED_MS = 80;
const RUNNING_MS = 20;

/** Lets a process run a fifth of the time, as on a machine that has much else to do, until this is disposed of. */
export function slowDown({ pid }: ServiceProcess): Disposable {
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
    if (signal('SIGSTOP')) timer = setTimeout(goOn, STOPPED_MS);
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
