import { parentPort, workerData } from 'node:worker_threads';
import { SecateurError } from '@secateur/core';
import { loadTokenizer } from './tokenizer.js';
import type { TokenizeReply, TokenizeRequest, TokenizeSetup } from './background-tokenizer.js';

const { directory, allowedRoots } = workerData as TokenizeSetup;
const tokenizer = loadTokenizer(directory, { allowedRoots });

async function answer({ id, texts, options }: TokenizeRequest): Promise<TokenizeReply> {
  try {
    const loaded = await tokenizer;
    return { id, ids: texts.map((text) => loaded.encode(text, options)) };
  } catch (error) {
    // Other errors are defects; they end the worker and reach its owner as they are.
    if (!(error instanceof SecateurError)) throw error;
    return { id, failure: { reason: error.reason, message: error.message } };
  }
}

// A tokenizer that cannot be loaded is told with the first text.
tokenizer.catch(() => undefined);
parentPort?.on('message', (request: TokenizeRequest) => void answer(request).then((reply) => parentPort?.postMessage(reply)));
