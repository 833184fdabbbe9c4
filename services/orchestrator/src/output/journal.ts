import { open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { withFileErrors } from '@secateur/checkpoint';
import type { ProjectionTargets } from '@secateur/core';
import { ProjectionReport } from '@secateur/proto/job';

const JOURNAL_FILE = 'journal.jsonl';

/** A finished block, durable in the output before it is journaled. */
export interface FinishedLayer {
  readonly layer: number;
  readonly projections: readonly ProjectionReport[];
  /** Digest of each pruned tensor, by name. */
  readonly digests: Readonly<Record<string, string>>;
  readonly seconds: number;
}

/** What was measured before any block was pruned. */
export interface DenseMeasurement {
  /** Digest of what it was measured with. */
  readonly digest: string;
  readonly perplexity: number;
}

/** The hidden states of one group in the file of a snapshot. */
export interface KeptGroup {
  readonly offset: number;
  readonly bytes: number;
  readonly digest: string;
}

/** The hidden states of all groups before a block, in a file beside the journal. */
export interface Snapshot {
  /** The block. */
  readonly position: number;
  /** By their indices. */
  readonly groups: readonly KeptGroup[];
}

export interface JournalContent {
  /** The job that writes it, or did last; undefined in those of earlier versions. */
  readonly jobId: string | undefined;
  /** What the job computes from; another identity means another result. */
  readonly identity: string;
  /** The last one that was journaled. */
  readonly dense: DenseMeasurement | undefined;
  /** Targets that were computed from the dense model; undefined where none were. */
  readonly targets: ProjectionTargets | undefined;
  /** In order, without gaps. */
  readonly layers: readonly FinishedLayer[];
  /** The last one. */
  readonly snapshot: Snapshot | undefined;
}

/** The list of finished blocks, and what was measured and computed before, beside an unfinished output. A line counts once it is whole, so a crash never leaves half an entry. */
export class Journal {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
  ) {}

  /** Where a journal is while it is begun. */
  static readonly newFile = `${JOURNAL_FILE}.new`;

  static pathIn(directory: string): string {
    return join(directory, JOURNAL_FILE);
  }

  /** Starts a journal with the layers of an earlier one, replacing that at once, so that a crash leaves either of them whole. */
  static async begin(directory: string, { jobId, identity, dense, targets, layers, snapshot }: JournalContent): Promise<Journal> {
    const path = Journal.pathIn(directory);
    const begun = join(directory, Journal.newFile);
    const journal = new Journal(path, await withFileErrors('create', begun, () => open(begun, 'w')));
    try {
      await journal.append({ identity, jobId });
      if (dense !== undefined) await journal.appendDense(dense);
      if (targets !== undefined) await journal.appendTargets(targets);
      for (const layer of layers) await journal.appendLayer(layer);
      if (snapshot !== undefined) await journal.appendSnapshot(snapshot);
      await withFileErrors('write', path, () => rename(begun, path));
      return journal;
    } catch (error) {
      await journal.close();
      throw error;
    }
  }

  /** What is journaled in a folder, or undefined when there is no usable journal. */
  static async read(directory: string): Promise<JournalContent | undefined> {
    let text: string;
    try {
      text = await readFile(Journal.pathIn(directory), 'utf8');
    } catch {
      return undefined;
    }
    const lines = text.split('\n').slice(0, -1);
    const [head, ...rest] = lines.map(parseLine);
    if (!isRecord(head) || typeof head['identity'] !== 'string') return undefined;
    const layers: FinishedLayer[] = [];
    let dense: DenseMeasurement | undefined;
    let targets: ProjectionTargets | undefined;
    let snapshot: Snapshot | undefined;
    for (const line of rest) {
      const measured = toDenseMeasurement(line);
      if (measured !== undefined) {
        dense = measured;
        continue;
      }
      const computed = toTargets(line);
      if (computed !== undefined) {
        targets = computed;
        continue;
      }
      const kept = toSnapshot(line);
      if (kept !== undefined) {
        snapshot = kept;
        continue;
      }
      const layer = toFinishedLayer(line);
      if (layer?.layer !== layers.length) break;
      layers.push(layer);
    }
    const jobId = typeof head['jobId'] === 'string' ? head['jobId'] : undefined;
    return { jobId, identity: head['identity'], dense, targets, layers, snapshot };
  }

  /** Of an output that has its final name: there is nothing to go on with any more. */
  static async remove(directory: string): Promise<void> {
    const path = Journal.pathIn(directory);
    await withFileErrors('remove', path, () => rm(path, { force: true }));
  }

  async appendDense(dense: DenseMeasurement): Promise<void> {
    await this.append({ dense });
  }

  async appendTargets(targets: ProjectionTargets): Promise<void> {
    await this.append({ targets: Object.fromEntries(targets) });
  }

  async appendLayer({ layer, projections, digests, seconds }: FinishedLayer): Promise<void> {
    await this.append({ layer, projections: projections.map((projection) => ProjectionReport.toJSON(projection)), digests, seconds });
  }

  async appendSnapshot(snapshot: Snapshot): Promise<void> {
    await this.append({ snapshot });
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private async append(entry: object): Promise<void> {
    await withFileErrors('write', this.path, async () => {
      await this.file.appendFile(`${JSON.stringify(entry)}\n`);
      await this.file.sync();
    });
  }
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function toDenseMeasurement(line: unknown): DenseMeasurement | undefined {
  if (!isRecord(line) || !isRecord(line['dense'])) return undefined;
  const { digest, perplexity } = line['dense'];
  if (typeof digest !== 'string') return undefined;
  // JSON has no infinity, which the loss of a broken model may become.
  if (perplexity === null) return { digest, perplexity: Infinity };
  return typeof perplexity === 'number' ? { digest, perplexity } : undefined;
}

function toTargets(line: unknown): ProjectionTargets | undefined {
  if (!isRecord(line) || !isRecord(line['targets'])) return undefined;
  const entries = Object.entries(line['targets']).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
  return new Map(entries);
}

function toSnapshot(line: unknown): Snapshot | undefined {
  if (!isRecord(line) || !isRecord(line['snapshot'])) return undefined;
  const { position, groups } = line['snapshot'];
  if (typeof position !== 'number' || !Array.isArray(groups)) return undefined;
  const kept = groups.map(toKeptGroup);
  return kept.every((group) => group !== undefined) ? { position, groups: kept } : undefined;
}

function toKeptGroup(value: unknown): KeptGroup | undefined {
  if (!isRecord(value)) return undefined;
  const { offset, bytes, digest } = value;
  return typeof offset === 'number' && typeof bytes === 'number' && typeof digest === 'string' ? { offset, bytes, digest } : undefined;
}

function toFinishedLayer(line: unknown): FinishedLayer | undefined {
  if (!isRecord(line)) return undefined;
  const { layer, projections, digests, seconds } = line;
  if (typeof layer !== 'number' || typeof seconds !== 'number' || !Array.isArray(projections) || !isRecord(digests)) return undefined;
  return {
    layer,
    seconds,
    projections: projections.map((projection) => ProjectionReport.fromJSON(projection)),
    digests: Object.fromEntries(Object.entries(digests).map(([name, digest]) => [name, String(digest)])),
  };
}
