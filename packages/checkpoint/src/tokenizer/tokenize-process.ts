import { serveRequests } from '../isolation/serve-requests.js';
import type { TokenizeRequest } from './background-tokenizer.js';
import { loadTokenizer, type Tokenizer } from './tokenizer.js';

let tokenizer: Promise<Tokenizer> | undefined;

serveRequests(async ({ directory, allowedRoots, texts, options }: TokenizeRequest) => {
  tokenizer ??= loadTokenizer(directory, { allowedRoots });
  const loaded = await tokenizer;
  return texts.map((text) => loaded.encode(text, options));
});
