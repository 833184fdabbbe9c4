/** Far above any machine, so that a mistyped range does not fill the memory. */
const MAXIMUM_CPU = 65_535;

/** `0-2,8` → 0, 1, 2, 8, as Linux writes lists of processors. Undefined when the text is no such list, or names a processor twice. */
export function parseCpuList(text: string): number[] | undefined {
  const cpus: number[] = [];
  for (const part of text.trim().split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match === null) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (first > last || last > MAXIMUM_CPU) return undefined;
    for (let cpu = first; cpu <= last; cpu += 1) cpus.push(cpu);
  }
  return new Set(cpus).size === cpus.length ? cpus : undefined;
}

/** 0, 1, 2, 8 → `0-2,8`; the order stays. */
export function formatCpuList(cpus: readonly number[]): string {
  const runs: { first: number; last: number }[] = [];
  for (const cpu of cpus) {
    const run = runs.at(-1);
    if (run !== undefined && cpu === run.last + 1) run.last = cpu;
    else runs.push({ first: cpu, last: cpu });
  }
  return runs.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(',');
}
