import { readdir, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { projectionName, SecateurError, type PlannedBlock, type PlannedProjection, type ProjectionTargets } from '@secateur/core';
import {
  CheckpointWriter,
  makeDirectory,
  maskEntries,
  MaskingThreads,
  SafetensorsFileWriter,
  withFileErrors,
  type MaskedWeights,
} from '@secateur/checkpoint';
import { DataType, type ShardDescriptor } from '@secateur/proto/model';
import type { Resources } from '@secateur/rpc';
import type { AllocatedProjection } from '../pipeline/allocate-block.js';
import type { JobLease } from '../jobs/job-lease.js';
import { describeShard, NOWHERE, prunedProjections, type JobPlan } from '../planner/job-plan.js';
import { Journal, type DenseMeasurement, type FinishedLayer } from './journal.js';
import { FolderLock } from './folder-lock.js';
import { REPORT_FILE, type OutputPlace } from './output-place.js';
import { Snapshots } from './snapshots.js';
import { sumDropped } from './sum-dropped.js';
import { isBarelyBegun } from './work-folder.js';

const LAYER_BUDGET_FILE = 'layer_budget.json';

/**
 * The output of a prune job while it is made: the work folder of its place with the pruned checkpoint, masks, row budgets and the journal.
 * Projections are written as they come, blocks are made durable and journaled one by one; `publish` gives the finished output its name.
 */
export class PrunedOutput {
  private readonly maskingThreads = new MaskingThreads();
  /** Of pruned tensors that are written, by name. */
  private readonly digests = new Map<string, string>();
  /** Ends when nothing is being written. */
  private writing: Promise<void> = Promise.resolve();

  private constructor(
    private readonly plan: JobPlan,
    private readonly place: OutputPlace,
    private readonly identity: string,
    private readonly lease: JobLease,
    private readonly lock: FolderLock,
    private readonly checkpoint: CheckpointWriter,
    private readonly masks: SafetensorsFileWriter,
    private readonly rowSparsities: SafetensorsFileWriter,
    private readonly journal: Journal,
    readonly snapshots: Snapshots,
    /** Blocks that are durable, in order. */
    readonly finished: FinishedLayer[],
    private dense: DenseMeasurement | undefined,
    private computedTargets: ProjectionTargets | undefined,
    private readonly resources: Resources,
  ) {}

  /** Begins an output, or goes on with the one an earlier attempt of the same job left. */
  static async open(plan: JobPlan, place: OutputPlace, identity: string, resources: Resources, lease: JobLease): Promise<PrunedOutput> {
    const partial = place.workFolder;
    const content = await reusableJournal(place, identity);
    const projections = plan.model.blocks.flatMap((block) => prunedProjections(plan, block));
    const masks = maskEntries(projections);
    const rowEntries = projections.map(({ name, rows }) => ({ name, dtype: 'F32', shape: [rows] }));
    const masksPath = join(partial, 'masks.safetensors');
    const rowsPath = join(partial, 'row_sparsities.safetensors');
    const layers = content?.layers ?? [];
    const written = layers.flatMap(({ projections: reports }) => reports.map(({ name }) => `${name}.weight`));
    await makeDirectory(partial);
    const lock = await FolderLock.take(partial, { advice: 'wait for it, or choose another output folder', lease });
    try {
      // The journal is there as long as anything else is: it tells whose that is.
      if (content === undefined)
        await removeAllBut(partial, (name) => FolderLock.isOwn(name) || name === basename(Journal.pathIn(partial)));
      const resuming = content !== undefined;
      const journal = await Journal.begin(partial, {
        jobId: plan.jobId,
        identity,
        dense: content?.dense,
        targets: content?.targets,
        layers,
        snapshot: content?.snapshot,
      });
      const closeJournal = async (error: unknown): Promise<never> => {
        await journal.close();
        throw error;
      };
      const kept = { jobId: plan.jobId, resources, lease, journal };
      const snapshots = await Snapshots.open(partial, kept, content?.snapshot).catch(closeJournal);
      const files = await openAll([
        resuming ? CheckpointWriter.resume(plan.checkpoint, partial, written) : CheckpointWriter.create(plan.checkpoint, partial),
        resuming ? SafetensorsFileWriter.resume(masksPath, masks, written) : SafetensorsFileWriter.create(masksPath, masks),
        resuming ? SafetensorsFileWriter.resume(rowsPath, rowEntries, written) : SafetensorsFileWriter.create(rowsPath, rowEntries),
      ]).catch(closeJournal);
      const before = [content?.dense, content?.targets, resources] as const;
      const output = new PrunedOutput(plan, place, identity, lease, lock, ...files, journal, snapshots, [...layers], ...before);
      for (const { digests } of layers) for (const [name, digest] of Object.entries(digests)) output.publishPruned(name, digest);
      return output;
    } catch (error) {
      await lock.release().catch(() => undefined);
      throw error;
    }
  }

  /** The perplexity before pruning, as it was journaled for the same data, or else as it is measured now. */
  async densePerplexity(digest: string, measure: () => Promise<number>): Promise<number> {
    if (this.dense?.digest !== digest) {
      this.dense = { digest, perplexity: await measure() };
      await this.journal.appendDense(this.dense);
    }
    return this.dense.perplexity;
  }

  /** The targets of projections, as they were journaled, or else as they are computed now. */
  async targets(compute: () => Promise<ProjectionTargets>): Promise<ProjectionTargets> {
    if (this.computedTargets === undefined) {
      this.computedTargets = await compute();
      await this.journal.appendTargets(this.computedTargets);
    }
    return this.computedTargets;
  }

  /** How many projections may be written at a time: each is a whole tensor in memory. */
  get writesAtOnce(): number {
    return this.maskingThreads.count;
  }

  /** Writes a projection's pruned tensor, mask and row budgets and returns the tensor's digest. They are durable after `commitBlock`. */
  async writeProjection({ projection, rows, mask, weights }: AllocatedProjection): Promise<string> {
    const { name } = projection;
    const masked = await this.mask(projection, mask, weights);
    const dropped = sumDropped(name, masked.droppedPerRow, rows.droppedPerRow);
    if (dropped !== rows.record?.dropped) {
      throw new SecateurError(
        'CORRUPT_DATA',
        `${name}: the mask drops ${dropped} weights, its record says ${rows.record?.dropped ?? 'nothing'}.`,
      );
    }
    await this.inTurn(async () => {
      this.lease.assertHeld();
      await this.checkpoint.writeTensor(name, masked.weights);
      this.lease.assertHeld();
      await this.masks.write(name, mask);
      this.lease.assertHeld();
      await this.rowSparsities.write(name, rows.rowSparsities);
    });
    this.publishPruned(name, masked.digest);
    return masked.digest;
  }

  /** Makes a block whose projections are all written durable and journals it. */
  async commitBlock(layer: FinishedLayer): Promise<void> {
    await Promise.all([this.checkpoint.sync(), this.masks.sync(), this.rowSparsities.sync()]);
    // Another orchestrator may have begun to write here.
    this.lease.assertHeld();
    await this.journal.appendLayer(layer);
    this.finished.push(layer);
  }

  /** The wire form of a block that is written: pruned projections from the output, the rest from the input. */
  describeBlock(block: PlannedBlock): ShardDescriptor {
    const pruned = new Set(prunedProjections(this.plan, block).map(({ name }) => name));
    const dense = describeShard(this.plan, block.shard);
    return {
      ...dense,
      tensors: dense.tensors.map((tensor) =>
        pruned.has(tensor.name)
          ? { ...tensor, ...NOWHERE, resource: prunedResource(this.plan.jobId, tensor.name), digest: this.digests.get(tensor.name) ?? '' }
          : tensor,
      ),
    };
  }

  /** Completes the output and gives it its final name. `layerBudget`: targets that other jobs may be given; undefined where all are alike. */
  async publish(report: object, layerBudget: ProjectionTargets | undefined, signal: AbortSignal): Promise<void> {
    const digests = new Map([...this.plan.scanned].map(([name, { digest }]) => [name, digest]));
    await this.checkpoint.copyRemaining({ digests, signal });
    await this.checkpoint.finish();
    await this.masks.finish();
    await this.rowSparsities.finish();
    const partial = this.place.workFolder;
    await writeJson(join(partial, REPORT_FILE), report);
    if (layerBudget !== undefined) {
      const ratios = [...layerBudget].map(([name, target]) => [projectionName({ name }), target] as const);
      await writeJson(join(partial, LAYER_BUDGET_FILE), Object.fromEntries(ratios));
    }
    this.lease.assertHeld();
    await this.lock.verify();
    await this.snapshots.removeAll();
    await this.journal.close();
    await this.place.publish({
      identity: this.identity,
      assertHeld: () => this.lease.assertHeld(),
      unlock: () => this.lock.release(),
      signal,
    });
  }

  /** Closes the files and leaves what is there for a later attempt. */
  async close(): Promise<void> {
    await Promise.allSettled([
      this.maskingThreads.close(),
      this.checkpoint.close(),
      this.masks.close(),
      this.rowSparsities.close(),
      this.journal.close(),
    ]);
    // The folder is not finished. What this process leaves in it keeps no later attempt out.
    await this.lock.release().catch(() => undefined);
  }

  /** One write at a time: a disk is no faster with more. */
  private inTurn(write: () => Promise<void>): Promise<void> {
    const written = this.writing.then(write);
    this.writing = written.catch(() => undefined);
    return written;
  }

  private async mask({ name, rows, columns }: PlannedProjection, mask: Buffer, weights: Buffer | undefined): Promise<MaskedWeights> {
    const shape = { rows, columns, elementBytes: this.elementBytes(name) };
    // Nodes still pull repaired weights.
    const bytes = weights === undefined ? await this.plan.checkpoint.readTensor(name) : Uint8Array.from(weights);
    const masked = await this.maskingThreads.mask({ name, weights: bytes, shape, mask, digestsBefore: weights === undefined });
    // The mask is of the weights as they were when the job began.
    if (weights === undefined && masked.digestBefore !== this.plan.scanned.get(name)?.digest)
      throw this.plan.checkpoint.changedTensor(name);
    return masked;
  }

  private elementBytes(name: string): number {
    return this.plan.checkpoint.tensors.get(name)?.dataType === DataType.F32 ? 4 : 2;
  }

  private publishPruned(name: string, digest: string): void {
    this.digests.set(name, digest);
    this.resources.publish(prunedResource(this.plan.jobId, name), {
      bytes: this.plan.checkpoint.tensors.get(name)!.bytes,
      read: (offset, length) => this.checkpoint.readTensor(name, offset, length),
    });
  }
}

async function writeJson(path: string, content: object): Promise<void> {
  await withFileErrors('write', path, () => writeFile(path, `${JSON.stringify(content, undefined, 2)}\n`, { flush: true }));
}

interface Closable {
  close(): Promise<void>;
}

/** All of them, or none: what was opened is closed when another one fails. */
async function openAll<A extends Closable, B extends Closable, C extends Closable>(
  opening: readonly [Promise<A>, Promise<B>, Promise<C>],
): Promise<[A, B, C]> {
  try {
    return await Promise.all(opening);
  } catch (error) {
    const results = await Promise.allSettled<Closable>(opening);
    await Promise.allSettled(results.map((result) => (result.status === 'fulfilled' ? result.value.close() : Promise.resolve())));
    throw error;
  }
}

async function removeAllBut(directory: string, isKept: (name: string) => boolean): Promise<void> {
  const names = (await readdir(directory)).filter((name) => !isKept(name));
  await withFileErrors('clear', directory, () =>
    Promise.all(names.map((name) => rm(join(directory, name), { recursive: true, force: true }))),
  );
}

function prunedResource(jobId: string, tensor: string): string {
  return `jobs/${jobId}/pruned/${tensor}`;
}

/** The journal to go on with; undefined to begin anew. An unfinished output of another job is never overwritten. */
async function reusableJournal(place: OutputPlace, identity: string) {
  const partial = place.workFolder;
  await place.requireFree(identity);
  if ((await stat(partial).catch(() => undefined)) === undefined) return undefined;
  const content = await Journal.read(partial);
  // Without a finished block there is nothing to keep, whosever it is, but what this job measured and computed before.
  const hasPrepared = content?.dense !== undefined || content?.targets !== undefined;
  if (content?.layers.length === 0 && (!hasPrepared || content.identity !== identity)) return undefined;
  if (content?.identity === identity) return content;
  if (content === undefined && (await isBarelyBegun(partial))) return undefined;
  const what = content === undefined ? 'files that are not of an unfinished job' : 'an unfinished job with another model, data or options';
  throw new SecateurError('ALREADY_EXISTS', `${partial} holds ${what}; remove it, or choose another output folder.`);
}
