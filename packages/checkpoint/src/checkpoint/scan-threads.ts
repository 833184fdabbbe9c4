import { CHECKSUM_BYTES, CHUNK_BYTES, SecateurError, throwIfCancelled } from '@secateur/core';
import { WorkerThreads } from '../threads/worker-threads.js';
import type { Checkpoint, TensorEntry } from './checkpoint.js';
import type { FilePart, ScanReply } from './scan-parts.js';

/** The same file whether this one runs compiled or as source. */
const MODULE = new URL('../../dist/checkpoint/scan-parts.js', import.meta.url);
/** Bytes of a task at least, and of a part of it at most: a few milliseconds, so that threads end together and a cancelled scan ends at once. */
const TASK_BYTES = 4 * CHUNK_BYTES;

export interface ThreadOptions {
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
  /** Told bytes once they were read and found right. */
  readonly onScanned: (bytes: number) => void;
}

/** A tensor and the memory for the checksums of its chunks. */
export interface TensorToScan {
  readonly entry: TensorEntry;
  readonly checksums: Uint8Array;
}

interface Task {
  readonly parts: readonly FilePart[];
  /** Where the checksums of each part belong. */
  readonly targets: readonly Uint8Array[];
}

/**
 * Makes the checksums of tensors on threads of their own; false, with nothing done, when the checkpoint is in a store. The error is that of the first
 * tensor in the order given, at its first place, whichever thread is faster. No thread reads any more once this is over.
 */
export async function scanOnThreads(
  checkpoint: Checkpoint,
  tensors: readonly TensorToScan[],
  { threads, signal, onScanned }: ThreadOptions,
): Promise<boolean> {
  const tasks = cutIntoTasks(checkpoint, tensors);
  if (tasks === undefined) return false;
  throwIfCancelled(signal);
  if (tasks.length === 0) return true;
  const workers = new WorkerThreads<readonly FilePart[], ScanReply>(MODULE, Math.min(threads, tasks.length));
  const remaining = tasks.entries();
  const failures: { readonly index: number; readonly error: unknown }[] = [];
  const scanRemaining = async (): Promise<void> => {
    for (const [index, { parts, targets }] of remaining) {
      // What comes before a failure has been given to threads already, and may fail too.
      if (failures.length > 0) return;
      try {
        throwIfCancelled(signal);
        distribute(checksumsOf(await workers.run(parts)), targets);
        onScanned(parts.reduce((sum, { bytes }) => sum + bytes, 0));
      } catch (error) {
        failures.push({ index, error });
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: threads }, scanRemaining));
  } finally {
    await workers.close();
  }
  const [first] = failures.sort((one, other) => one.index - other.index);
  if (first !== undefined) throw toScanError(first.error);
  return true;
}

/** Large tensors in parts, small ones together, in order; undefined when a file is in a store. */
function cutIntoTasks(checkpoint: Checkpoint, tensors: readonly TensorToScan[]): readonly Task[] | undefined {
  const tasks: Task[] = [];
  let task = { parts: [] as FilePart[], targets: [] as Uint8Array[] };
  let room = TASK_BYTES;
  for (const { entry, checksums } of tensors) {
    const file = checkpoint.sharedFile(entry.file);
    if (file === undefined) return undefined;
    const tensor = { file: entry.file, name: entry.name, dataType: entry.dataType };
    for (let offset = 0; offset < entry.bytes; offset += TASK_BYTES) {
      const bytes = Math.min(TASK_BYTES, entry.bytes - offset);
      task.parts.push({ tensor, ...file, position: entry.fileOffset + offset, offset, bytes });
      task.targets.push(checksums.subarray(checksumBytes(offset), checksumBytes(offset + bytes)));
      room -= bytes;
      if (room > 0) continue;
      tasks.push(task);
      task = { parts: [], targets: [] };
      room = TASK_BYTES;
    }
  }
  if (task.parts.length > 0) tasks.push(task);
  return tasks;
}

function checksumBytes(bytes: number): number {
  return CHECKSUM_BYTES * Math.ceil(bytes / CHUNK_BYTES);
}

function checksumsOf(reply: ScanReply): Uint8Array {
  if (reply.kind === 'failure') throw new SecateurError(reply.reason, reply.message);
  return reply.checksums;
}

function distribute(checksums: Uint8Array, targets: readonly Uint8Array[]): void {
  let start = 0;
  for (const target of targets) {
    target.set(checksums.subarray(start, start + target.byteLength));
    start += target.byteLength;
  }
}

function toScanError(cause: unknown): SecateurError {
  if (cause instanceof SecateurError) return cause;
  return new SecateurError('INTERNAL', `The weights could not be scanned: ${String(cause)}`, { cause });
}
