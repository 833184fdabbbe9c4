import { readFileSync } from 'node:fs';

/** The most memory this process has had in use since its program began: VmHWM. The maxrss of getrusage counts what its parent had when it was started. */
export function peakResidentBytes(): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  // Sandboxes with a kernel of their own, such as gVisor, may not tell it.
  return 1024 * (kibibytes === undefined ? process.resourceUsage().maxRSS : Number(kibibytes));
}
