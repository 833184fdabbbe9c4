import { SecateurError } from '@secateur/core';
import { IsolatedProcess } from '../isolation/isolated-process.js';
import type { EncodeOptions } from './tokenizer.js';

/** Whose tokenizer it is. */
export interface TokenizeSetup {
  readonly directory: string;
  readonly allowedRoots?: readonly string[] | undefined;
}

export interface TokenizeRequest extends TokenizeSetup {
  readonly texts: readonly string[];
  readonly options: EncodeOptions;
}

/** The same file whether this one runs compiled or as source. */
const PROCESS = new URL('../../dist/tokenizer/tokenize-process.js', import.meta.url);
/** To start and to read the files, and for each MiB of text: about twenty times what tokenizers of models need. */
const START_MS = 60_000;
const MS_PER_MIB = 20_000;

/**
 * A model's tokenizer in a process of its own, so that long texts do not hold up this one, and so that its patterns, which may take time that
 * doubles with every character, can be stopped. Must be closed.
 */
export class BackgroundTokenizer {
  private readonly process: IsolatedProcess;

  constructor(
    private readonly setup: TokenizeSetup,
    signal?: AbortSignal,
    /** For starting. */
    private readonly startMs: number = START_MS,
  ) {
    this.process = new IsolatedProcess({ module: PROCESS, signal });
  }

  /** Token ids of a text with the special tokens that the model expects around it. */
  async encode(text: string): Promise<Int32Array> {
    const [ids = new Int32Array()] = await this.encodeAll([text]);
    return ids;
  }

  /** The same of many texts at once, with or without special tokens. */
  async encodeAll(texts: readonly string[], options: EncodeOptions = {}): Promise<readonly Int32Array[]> {
    const mebibytes = texts.reduce((sum, { length }) => sum + length, 0) / 2 ** 20;
    const timeoutMs = this.startMs + MS_PER_MIB * mebibytes;
    const request: TokenizeRequest = { ...this.setup, texts, options };
    const limits = {
      timeoutMs,
      onTimeout: () => this.tooSlow(mebibytes, timeoutMs),
      subject: `Text with the tokenizer of ${this.setup.directory}`,
    };
    return (await this.process.request(request, limits)) as readonly Int32Array[];
  }

  async close(): Promise<void> {
    await this.process.close();
  }

  private tooSlow(mebibytes: number, timeoutMs: number): SecateurError {
    return new SecateurError(
      'INVALID_CHECKPOINT',
      `${this.setup.directory}: its tokenizer took more than ${Math.round(timeoutMs / 1000)} s for ${mebibytes.toFixed(2)} MiB of text and was stopped; look for a pattern in tokenizer.json that can match in very many ways, or give token ids as a .safetensors file.`,
    );
  }
}
