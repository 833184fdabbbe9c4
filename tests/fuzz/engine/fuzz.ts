import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SecateurError } from '@secateur/core';
import { withTemporaryFolder } from '../../support/paths.js';
import { Coverage } from './coverage.js';
import { mutate } from './mutate.js';
import { peakBytesOf } from './peak-bytes.js';
import { Random } from './random.js';
import type { FuzzTarget, Reader } from './target.js';
import { Watchdog } from './watchdog.js';

/** What one input may add to the peak of the memory. */
const MAXIMUM_GROWTH_BYTES = 512 << 20;
/** Errors are read by people. */
const MAXIMUM_MESSAGE = 4000;
const MAXIMUM_CORPUS = 2000;
const CANDIDATES = 8;
/** Larger inputs slow down the search; what one of them reaches, small ones reach too. */
const MAXIMUM_KEPT_BYTES = 1 << 17;

interface FuzzOptions {
  readonly name: string;
  readonly seconds: number;
  readonly seed: number;
  /** Folder of inputs to begin with. */
  readonly corpus: string;
  /** Folder where inputs that are findings are left. */
  readonly findings: string;
}

export interface FuzzFigures {
  readonly inputs: number;
  readonly seconds: number;
  readonly refused: number;
  /** Inputs in the corpus at the end, and parts of the code that have run. */
  readonly corpus: number;
  readonly parts: number;
  readonly slowestMs: number;
  readonly findings: readonly string[];
}

/** Gives a target the corpus, and then mutations of it until the time is over. */
export async function fuzz(target: FuzzTarget, options: FuzzOptions): Promise<FuzzFigures> {
  const corpus = [...readCorpus(options.corpus), ...((await target.seeds?.()) ?? [])];
  if (corpus.length === 0) throw new Error(`${options.name} has nothing to begin with.`);
  return withTemporaryFolder(async (folder) => {
    const reader = await target.open(folder);
    try {
      return await new Run(target, reader, corpus, options).go();
    } finally {
      await reader.close?.();
    }
  });
}

class Run {
  private readonly random: Random;
  private readonly watchdog: Watchdog;
  private readonly coverage: Coverage | undefined;
  private readonly findings = new Map<string, string>();
  private readonly rejections: unknown[] = [];
  private readonly candidates: Buffer[] = [];
  private inputs = 0;
  private refused = 0;
  private slowestMs = 0;

  constructor(
    private readonly target: FuzzTarget,
    private readonly reader: Reader,
    private readonly corpus: Buffer[],
    private readonly options: FuzzOptions,
  ) {
    this.random = new Random(options.seed);
    this.watchdog = new Watchdog(target.limitMs);
    this.coverage = target.watched === undefined ? undefined : new Coverage(target.watched);
  }

  async go(): Promise<FuzzFigures> {
    process.on('unhandledRejection', this.keepRejection);
    const startedMs = performance.now();
    for (const input of [...this.corpus]) await this.try(input);
    while (performance.now() - startedMs < this.options.seconds * 1000) {
      const mutated = mutate(this.corpus, this.target.words, this.random);
      const input = this.target.repair?.(mutated, this.random) ?? mutated;
      await this.try(input);
      this.keepWhatIsNew(input);
    }
    this.coverage?.[Symbol.dispose]();
    process.off('unhandledRejection', this.keepRejection);
    const { inputs, refused, slowestMs, corpus, coverage, findings } = this;
    const seconds = (performance.now() - startedMs) / 1000;
    return { inputs, seconds, refused, corpus: corpus.length, parts: coverage?.size ?? 0, slowestMs, findings: [...findings.values()] };
  }

  /** Coverage is asked for after a few inputs at a time, since that takes longer than most of them; all of those are kept then. */
  private keepWhatIsNew(input: Buffer): void {
    if (this.coverage === undefined) return;
    if (input.byteLength <= MAXIMUM_KEPT_BYTES) this.candidates.push(Buffer.from(input));
    if (this.candidates.length < CANDIDATES) return;
    const candidates = this.candidates.splice(0);
    if (this.coverage.isNew() && this.corpus.length < MAXIMUM_CORPUS) this.corpus.push(...candidates);
  }

  private readonly keepRejection = (cause: unknown): void => void this.rejections.push(cause);

  private async try(input: Buffer): Promise<void> {
    this.inputs += 1;
    // What kills this process is found here.
    const path = join(this.options.findings, `${this.options.name}-last`);
    mkdirSync(this.options.findings, { recursive: true });
    writeFileSync(path, input);
    const peakBefore = this.peakBytes();
    const startedMs = performance.now();
    try {
      await this.watchdog.run(() => this.reader.read(input));
      // Rejections that nobody handles are told of once the promises have run.
      await new Promise(setImmediate);
    } catch (error) {
      this.judge(error, input);
    }
    this.slowestMs = Math.max(this.slowestMs, performance.now() - startedMs);
    for (const cause of this.rejections.splice(0)) this.report(`unhandled rejection: ${describe(cause)}`, input);
    const growth = this.peakBytes() - peakBefore;
    if (growth > MAXIMUM_GROWTH_BYTES) this.report(`an input takes ${Math.round(growth / 2 ** 20)} MiB`, input);
    rmSync(path);
  }

  private judge(error: unknown, input: Buffer): void {
    if (!(error instanceof SecateurError) || error.reason === 'INTERNAL') this.report(describe(error), input, causeOf(error));
    else if (error.message.length > MAXIMUM_MESSAGE) this.report(`a message of ${error.message.length} characters`, input);
    else this.refused += 1;
  }

  /** Findings with the same first lines are one. */
  private report(description: string, input: Buffer, cause = ''): void {
    const key = description.replaceAll(/\d+/g, '#').slice(0, 300);
    if (this.findings.has(key)) return;
    const path = join(this.options.findings, `${this.options.name}-${createHash('sha256').update(input).digest('hex').slice(0, 12)}`);
    writeFileSync(path, input);
    this.findings.set(key, `${description}\n  input: ${path}${cause}`);
  }

  private peakBytes(): number {
    return Math.max(peakBytesOf(process.pid), this.reader.peakBytes?.() ?? 0);
  }
}

function readCorpus(folder: string): Buffer[] {
  try {
    return readdirSync(folder)
      .sort()
      .map((name) => readFileSync(join(folder, name)));
  } catch {
    return [];
  }
}

function causeOf(error: unknown): string {
  if (!(error instanceof Error) || error.cause === undefined) return '';
  return `\n  cause: ${error.cause instanceof Error ? error.cause.message : JSON.stringify(error.cause)}`;
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `thrown: ${String(error)}`;
  return (error.stack ?? error.message).split('\n').slice(0, 4).join('\n').slice(0, 1500);
}
