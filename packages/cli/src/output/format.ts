import type { JobEvent_LayerFinished, JobEvent_Planned, ProjectionReport } from '@secateur/proto/job';

/** 0.69832 → `69.83 %`. */
export function formatShare(value: number): string {
  return `${(100 * value).toFixed(2)} %`;
}

/** A quality in any metric: 0.97934 → `0.9793`, -0.00084175 → `-0.000842`. */
export function formatQuality(value: number): string {
  if (!Number.isFinite(value)) return 'infinite';
  return value !== 0 && Math.abs(value) < 0.1 ? value.toPrecision(3) : value.toFixed(4);
}

export function formatSeconds(seconds: number): string {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Time left at the pace so far; empty before there is a pace and when nothing is left. */
export function formatTimeLeft({ seconds, finished, remaining }: { seconds: number; finished: number; remaining: number }): string {
  return finished > 0 && remaining > 0 ? `${formatSeconds((seconds / finished) * remaining)} left` : '';
}

/** 1536 → `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  return scale(bytes, 1024, ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** 2.5e12 → `2.5 TFLOP`. */
export function formatFlops(count: number): string {
  return scale(count, 1000, ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP']);
}

function scale(value: number, step: number, units: readonly string[]): string {
  const power = value < step ? 0 : Math.min(units.length - 1, Math.floor(Math.log(value) / Math.log(step)));
  return `${(value / step ** power).toFixed(power === 0 ? 0 : 1)} ${units[power] ?? ''}`;
}

/** The name of a weight as reports have it. */
export function withoutWeight(name: string): string {
  return name.replace(/\.weight$/, '');
}

export function formatCount(value: number): string {
  return value.toLocaleString('en-US');
}

export interface ProjectionsSummary {
  /** Over all weights. */
  readonly sparsity: number;
  /** Mean qualities with uniform rows and now. */
  readonly before: number;
  readonly after: number;
  /** Mean squared errors of the outputs, relative to them, as the allocation leaves them and as swaps and repairs do; absent without either. */
  readonly errors: { readonly before: number; readonly after: number } | undefined;
}

/** What is left of projections, of which there is one at least, when they are told in one line. */
export function summarizeProjections(projections: readonly ProjectionReport[]): ProjectionsSummary {
  const weights = projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const dropped = projections.reduce((sum, { record }) => sum + (record?.dropped ?? 0), 0);
  const mean = (pick: (projection: ProjectionReport) => number): number =>
    projections.reduce((sum, projection) => sum + pick(projection), 0) / projections.length;
  const changed = projections.some(({ repair, swap }) => repair !== undefined || swap !== undefined);
  return {
    sparsity: dropped / weights,
    before: mean(({ record }) => record?.baselineQuality ?? 0),
    after: mean(({ record }) => record?.bestQuality ?? 0),
    errors: changed
      ? {
          before: mean(({ repair, swap }) => (swap ?? repair)?.errorBefore ?? 0),
          after: mean(({ repair, swap }) => (repair ?? swap)?.errorAfter ?? 0),
        }
      : undefined,
  };
}

export function formatPlan({ layers, resumedLayers, samples, sequenceLength, weights }: JobEvent_Planned): string {
  const resumed = resumedLayers > 0 ? `, going on after layer ${resumedLayers}` : '';
  return `${layers} layers, ${formatCount(weights)} weights in projections, ${samples} samples of ${sequenceLength} tokens${resumed}`;
}

export function formatLayerLine({ layer, projections, seconds }: JobEvent_LayerFinished): string {
  if (projections.length === 0) return `layer ${layer + 1}: left out, ${formatSeconds(seconds)}`;
  const { sparsity, before, after, errors } = summarizeProjections(projections);
  const change =
    errors === undefined
      ? `quality ${formatQuality(before)} -> ${formatQuality(after)}`
      : `output error ${formatShare(errors.before)} -> ${formatShare(errors.after)}`;
  return `layer ${layer + 1}: ${formatShare(sparsity)} zero, ${change}, ${formatSeconds(seconds)}`;
}
