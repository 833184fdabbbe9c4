import { extname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { SecateurError } from '@secateur/core';
import { resolveInsideRoots } from '../files/allowed-roots.js';
import type { InputFolder } from '../files/folder.js';
import type { InputOptions } from '../files/input-file.js';
import { openFolder } from '../files/input-folder.js';
import { joinLocation } from '../files/locations.js';
import { openInput, readSmallFile } from '../files/open-input.js';
import type { ReadableFile } from '../files/readable-file.js';
import { readSafetensorsLayout, type SafetensorsLayout, type TensorLayout } from '../safetensors/header.js';
import { quote } from '../safetensors/json-reader.js';
import { readShardIndex } from './shard-index.js';

const CONFIG_FILE = 'config.json';
const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';

const MAXIMUM_CONFIG_BYTES = 4 << 20;
const MAXIMUM_COMPANION_BYTES = 64 << 20;

/** Endings of files that hold weights, ours or in other formats. */
const WEIGHT_EXTENSIONS: ReadonlySet<string> = new Set([
  '.safetensors',
  '.bin',
  '.pt',
  '.pth',
  '.ckpt',
  '.gguf',
  '.ggml',
  '.h5',
  '.msgpack',
  '.onnx',
  '.ot',
  '.npz',
  '.tflite',
  '.zip',
  '.gz',
  '.tar',
]);

/** Files that a pruned output gets anew, or not at all, and those that are in its folder while it is made: a copy would take their place. */
const OWN_FILES: ReadonlySet<string> = new Set(['secateur.json', 'layer_budget.json', 'journal.jsonl', 'owner.json', 'uploads.jsonl']);

/** A tensor of a checkpoint. */
export interface TensorEntry extends TensorLayout {
  /** Name of the file that holds it, inside the checkpoint folder. */
  readonly file: string;
}

/** A safetensors file of a checkpoint. */
export interface CheckpointFile {
  /** Name inside the checkpoint folder. */
  readonly name: string;
  readonly layout: SafetensorsLayout;
}

export interface ReadOptions {
  /** First byte inside the tensor. Defaults to 0. */
  readonly offset?: number | undefined;
  /** Number of bytes. Defaults to all that follow. */
  readonly length?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An opened checkpoint folder: config, checked headers and tensors that are read by ranges. */
export class Checkpoint implements AsyncDisposable {
  private constructor(
    /** Absolute path without symbolic links, or the URL of a store. */
    readonly directory: string,
    /** The parsed config.json. */
    readonly config: unknown,
    readonly files: readonly CheckpointFile[],
    /** By name, in the order of the files and their headers. */
    readonly tensors: ReadonlyMap<string, TensorEntry>,
    /** Names of the files beside the weights that belong to the model: config, tokenizer, licence, the shard index, … */
    readonly companionFiles: readonly string[],
    private readonly inputs: ReadonlyMap<string, ReadableFile>,
    private readonly options: InputOptions,
  ) {}

  static async open(directory: string, options: InputOptions = {}): Promise<Checkpoint> {
    const folder = await openFolder(directory, options);
    const config = await readConfig(joinLocation(folder.path, CONFIG_FILE), options);
    const weightMap = await findWeights(folder, options);
    const names = weightMap === undefined ? [SINGLE_FILE] : [...new Set(weightMap.values())].sort();
    const inputs = new Map<string, ReadableFile>();
    try {
      const files: CheckpointFile[] = [];
      for (const name of names) {
        const input = await openShard(joinLocation(folder.path, name), options);
        inputs.set(name, input);
        files.push({ name, layout: await readSafetensorsLayout(input) });
      }
      const tensors = mergeTensors(files);
      if (weightMap !== undefined) checkWeightMap(joinLocation(folder.path, INDEX_FILE), weightMap, tensors);
      const companionFiles = await listCompanionFiles(folder, weightMap !== undefined, options);
      return new Checkpoint(folder.path, config, files, tensors, companionFiles, inputs, options);
    } catch (error) {
      await Promise.all([...inputs.values()].map((input) => input.close()));
      throw error;
    }
  }

  /** A tensor by name; NOT_FOUND when there is none. */
  tensor(name: string): TensorEntry {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw new SecateurError('NOT_FOUND', `${this.directory} has no tensor ${quote(name)}.`);
    return entry;
  }

  /** The bytes of a tensor, or a range of them, in memory of their own. */
  async readTensor(name: string, { offset = 0, length, signal }: ReadOptions = {}): Promise<Buffer<ArrayBuffer>> {
    const { bytes } = this.tensor(name);
    const target = Buffer.allocUnsafeSlow(checkedLength(name, bytes, offset, length));
    await this.readTensorInto(name, target, { offset, signal });
    return target;
  }

  /** Fills `target` with bytes of a tensor from `offset` on. */
  async readTensorInto(name: string, target: Uint8Array, { offset = 0, signal }: Omit<ReadOptions, 'length'> = {}): Promise<void> {
    const { bytes, file, fileOffset } = this.tensor(name);
    checkedLength(name, bytes, offset, target.byteLength);
    await this.input(file).readInto(target, fileOffset + offset, signal);
  }

  /** How other threads of this process read a file of weights as long as the checkpoint is open; undefined when it is in a store. */
  sharedFile(file: string): { readonly path: string; readonly descriptor: number } | undefined {
    const { path, descriptor } = this.input(file);
    return descriptor === undefined ? undefined : { path, descriptor };
  }

  /** Path of a file of weights that was written to since it was opened; undefined when none was. */
  async changedFile(): Promise<string | undefined> {
    for (const input of this.inputs.values()) if (await input.wasChanged()) return input.path;
    return undefined;
  }

  /** The error of a tensor that has other bytes than when it was read first. */
  changedTensor(name: string): SecateurError {
    return this.changed(`${joinLocation(this.directory, this.tensor(name).file)}, tensor ${quote(name)},`);
  }

  /** The error of something that is not as it was when the checkpoint was opened. */
  changed(what: string): SecateurError {
    return new SecateurError(
      'FAILED_PRECONDITION',
      `${what} was changed while it was used. Put back what it was and go on, or remove what is unfinished and begin anew.`,
    );
  }

  /** The content of a companion file. */
  async readCompanionFile(name: string): Promise<Buffer> {
    if (!this.companionFiles.includes(name))
      throw new SecateurError('NOT_FOUND', `${this.directory} has no companion file ${quote(name)}.`);
    const path = joinLocation(this.directory, name);
    const content = await readSmallFile(path, MAXIMUM_COMPANION_BYTES, this.options, () => this.changed(path));
    if (name === CONFIG_FILE && !isDeepStrictEqual(parseJson(content), this.config)) throw this.changed(path);
    return content;
  }

  async close(): Promise<void> {
    await Promise.all([...this.inputs.values()].map((input) => input.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private input(file: string): ReadableFile {
    const input = this.inputs.get(file);
    if (input === undefined) throw new SecateurError('INTERNAL', `No file ${file} is open.`);
    return input;
  }
}

/**
 * Opens a checkpoint in the Hugging Face layout, a folder or a prefix of a store (`s3://BUCKET/PREFIX`), and checks config.json, the shard index
 * and every header; weights are not read. Errors name the file and the tensor. With `allowedRoots`, files that lead outside them by symbolic
 * links are refused.
 */
export function openCheckpoint(directory: string, options: InputOptions = {}): Promise<Checkpoint> {
  return Checkpoint.open(directory, options);
}

/** The real path and the parsed config.json of a model's folder, whether or not it has weights. */
export async function readModelConfig(
  directory: string,
  options: InputOptions,
): Promise<{ readonly directory: string; readonly config: unknown }> {
  const { path } = await openFolder(directory, options);
  return { directory: path, config: await readConfig(joinLocation(path, CONFIG_FILE), options) };
}

/** Whether a folder has weights that can be opened as a checkpoint. */
export async function hasWeights(directory: string, options: InputOptions): Promise<boolean> {
  const folder = await openFolder(directory, options);
  return (await folder.has(SINGLE_FILE)) || folder.has(INDEX_FILE);
}

function parseJson(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return undefined;
  }
}

async function readConfig(path: string, options: InputOptions): Promise<unknown> {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_CHECKPOINT', `${path}: ${what}.`);
  const content = await readSmallFile(path, MAXIMUM_CONFIG_BYTES, options, (bytes) => fail(`it has ${bytes} bytes, too many for a config`));
  try {
    return JSON.parse(content.toString('utf8'));
  } catch (error) {
    throw fail(`it is not valid JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The weight map of a sharded checkpoint; undefined when there is a single file. */
async function findWeights(folder: InputFolder, options: InputOptions): Promise<ReadonlyMap<string, string> | undefined> {
  if (await folder.has(SINGLE_FILE)) return undefined;
  if (await folder.has(INDEX_FILE)) return readShardIndex(joinLocation(folder.path, INDEX_FILE), options);
  throw new SecateurError(
    'INVALID_CHECKPOINT',
    `${folder.path} has neither ${SINGLE_FILE} nor ${INDEX_FILE}; only safetensors checkpoints can be read.`,
  );
}

async function openShard(path: string, options: InputOptions): Promise<ReadableFile> {
  try {
    return await openInput(path, options);
  } catch (error) {
    if (error instanceof SecateurError && error.reason === 'NOT_FOUND') {
      throw new SecateurError('INVALID_CHECKPOINT', `${path}: this file of the checkpoint is missing.`, { cause: error });
    }
    throw error;
  }
}

function mergeTensors(files: readonly CheckpointFile[]): Map<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  for (const { name: file, layout } of files) {
    for (const tensor of layout.tensors.values()) {
      const other = tensors.get(tensor.name);
      if (other !== undefined) {
        throw new SecateurError('INVALID_CHECKPOINT', `${file}: tensor ${quote(tensor.name)} is also in ${other.file}.`);
      }
      tensors.set(tensor.name, { ...tensor, file });
    }
  }
  return tensors;
}

/** The index and the headers must tell the same, in both directions. */
function checkWeightMap(path: string, weightMap: ReadonlyMap<string, string>, tensors: ReadonlyMap<string, TensorEntry>): void {
  for (const [name, file] of weightMap) {
    const actual = tensors.get(name)?.file;
    if (actual === file) continue;
    const where = actual === undefined ? 'no file has it' : `it is in ${actual}`;
    throw new SecateurError('INVALID_CHECKPOINT', `${path}: tensor ${quote(name)} should be in ${file}, but ${where}.`);
  }
  for (const { name, file } of tensors.values()) {
    if (!weightMap.has(name))
      throw new SecateurError('INVALID_CHECKPOINT', `${path}: tensor ${quote(name)} of ${file} is not in weight_map.`);
  }
}

/** Small files beside the weights. */
async function listCompanionFiles(folder: InputFolder, sharded: boolean, { allowedRoots }: InputOptions): Promise<string[]> {
  const names: string[] = [];
  for (const { name, bytes } of await folder.list()) {
    if (name.startsWith('.') || OWN_FILES.has(name) || WEIGHT_EXTENSIONS.has(extname(name).toLowerCase())) continue;
    if (name.endsWith('.index.json') && !(sharded && name === INDEX_FILE)) continue;
    if (bytes > MAXIMUM_COMPANION_BYTES) continue;
    if (allowedRoots !== undefined) await resolveInsideRoots(joinLocation(folder.path, name), allowedRoots);
    names.push(name);
  }
  return names;
}

function checkedLength(name: string, bytes: number, offset: number, length = bytes - offset): number {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > bytes) {
    throw new SecateurError(
      'INVALID_REQUEST',
      `Bytes ${offset} to ${offset + length} were asked of tensor ${quote(name)}, which has ${bytes}.`,
    );
  }
  return length;
}
