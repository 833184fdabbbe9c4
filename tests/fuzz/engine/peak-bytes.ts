import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The most memory a process has had in use. Its maxrss would count what its parent had when it was started. */
export function peakBytesOf(pid: number): number {
  return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(join('/proc', String(pid), 'status'), 'utf8'))?.[1]);
}
