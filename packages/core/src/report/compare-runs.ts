import { SecateurError } from '../errors.js';
import { layerOfProjection } from '../planning/select-projections.js';
import type { ProjectionReportJson, PruneReportJson } from './report-json.js';

/** Something of two runs; null where a run does not have it. */
export interface SideBySide<Value> {
  readonly a: Value | null;
  readonly b: Value | null;
}

export interface LayerSummary {
  /** Share of the weights that were dropped. */
  readonly sparsity: number;
  /** Mean of the projections' qualities with the same sparsity in every row. */
  readonly uniformQuality: number;
  /** Mean of the qualities that were reached; infinite, as the one above, when that of a projection is. */
  readonly quality: number;
  readonly seconds: number;
}

/** Two prune runs side by side. */
export interface RunComparison {
  readonly output: SideBySide<string>;
  readonly sparsity: SideBySide<PruneReportJson['sparsity']>;
  readonly perplexity: SideBySide<NonNullable<PruneReportJson['perplexity']>>;
  /** What the runs were given, as far as it differs. */
  readonly options: readonly ({ readonly name: string } & SideBySide<unknown>)[];
  readonly layers: readonly SideBySide<LayerSummary>[];
  /** Seconds of each step and in all. */
  readonly seconds: Readonly<Record<string, SideBySide<number>>>;
}

export function compareRuns(a: PruneReportJson, b: PruneReportJson): RunComparison {
  const both = <Value>(pick: (run: PruneReportJson) => Value | undefined): SideBySide<Value> => ({
    a: pick(a) ?? null,
    b: pick(b) ?? null,
  });
  const [layersA, layersB] = [summarizeLayers(a), summarizeLayers(b)];
  const steps = [...new Set([...Object.keys(a.timings.seconds), ...Object.keys(b.timings.seconds)])];
  return {
    output: both(({ output }) => output),
    sparsity: both(({ sparsity }) => sparsity),
    perplexity: both(({ perplexity }) => perplexity),
    options: findDifferences(optionsOf(a), optionsOf(b)),
    layers: Array.from({ length: Math.max(layersA.length, layersB.length) }, (_, layer) => ({
      a: layersA[layer] ?? null,
      b: layersB[layer] ?? null,
    })),
    seconds: Object.fromEntries(steps.map((step) => [step, both(({ timings }) => timings.seconds[step])])),
  };
}

/** The content of a `secateur.json` as far as runs are compared by it, or INVALID_DATA with what is missing. `path` names the file. */
export function requireRunReport(value: unknown, path: string): PruneReportJson {
  const require = (condition: boolean, field: string): void => {
    if (condition) return;
    throw new SecateurError('INVALID_DATA', `${path}: the field ${field} is missing or wrong; is it the secateur.json of a pruned model?`);
  };
  const report = value as PruneReportJson;
  require(isRecord(value) && typeof report.output === 'string', 'output');
  const { sparsity, config, calibration, projections, timings, perplexity } = report;
  require(isRecord(sparsity) && isNumber(sparsity.target) && isNumber(sparsity.actual), 'sparsity');
  require(isRecord(config), 'config');
  require(isRecord(calibration), 'calibration');
  const isProjection = (projection: unknown): boolean =>
    isRecord(projection) &&
    typeof projection['name'] === 'string' &&
    ['rows', 'columns', 'actual'].every((name) => isNumber(projection[name])) &&
    ['baselineQuality', 'bestQuality'].every((name) => projection[name] === null || isNumber(projection[name]));
  require(Array.isArray(projections) && projections.every(isProjection), 'projections');
  const isTimed = isRecord(timings) && isRecord(timings.seconds) && Array.isArray(timings.layerSeconds);
  require(isTimed && timings.layerSeconds.every(isNumber) && Object.values(timings.seconds).every(isNumber), 'timings');
  require(perplexity === undefined || (isNumber(perplexity.dense) && isNumber(perplexity.pruned)), 'perplexity');
  return report;
}

/** Of the projections that were pruned; undefined for a layer that was left out. */
function summarizeLayers({ projections, timings }: PruneReportJson): (LayerSummary | undefined)[] {
  return timings.layerSeconds.map((seconds, layer) => {
    const own = projections.filter(({ name }) => layerOfProjection(name) === layer);
    if (own.length === 0) return undefined;
    const weights = own.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    const mean = (pick: (projection: ProjectionReportJson) => number): number =>
      own.reduce((sum, each) => sum + pick(each), 0) / own.length;
    return {
      sparsity: own.reduce((sum, { rows, columns, actual }) => sum + rows * columns * actual, 0) / weights,
      uniformQuality: mean(({ baselineQuality }) => baselineQuality ?? Infinity),
      quality: mean(({ bestQuality }) => bestQuality ?? Infinity),
      seconds,
    };
  });
}

/** Everything a run was given, by the names it has in `secateur.json`. */
function optionsOf({ model, sparsity, config, calibration }: PruneReportJson): Record<string, unknown> {
  const { samples, seqLen, sampling, digest } = calibration;
  return { model, sparsity: sparsity.target, ...config, samples, seqLen, sampling, calibrationDigest: digest };
}

function findDifferences(a: Record<string, unknown>, b: Record<string, unknown>): RunComparison['options'] {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])];
  return names
    .filter((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]))
    .map((name) => ({ name, a: a[name] ?? null, b: b[name] ?? null }));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}
