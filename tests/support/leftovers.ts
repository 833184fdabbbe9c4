import type { ChildProcess } from 'node:child_process';

const running = new Set<ChildProcess>();

/** Processes that run until somebody stops them. */
export function remember(child: ChildProcess): void {
  running.add(child);
  child.once('exit', () => running.delete(child));
}

export function killLeftovers(): void {
  for (const child of running) child.kill('SIGKILL');
}
