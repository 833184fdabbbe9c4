import { resolveJobSpec } from '@secateur/core';
import { JobSpec } from '@secateur/proto/job';
import { pruneSpec, evaluateSpec } from '../../support/jobs.js';
import type { FuzzTarget } from '../engine/target.js';

/** Encoded job specs. */
export const jobSpec: FuzzTarget = {
  words: ['(a+)+$', 'mlp', '\\p{L}', '(?=a)', 'layers\\.[0-9]+', '/etc/passwd', '../..', '*', 'text'],
  watched: ['packages/core/', 'proto/'],
  limitMs: 5_000,
  seeds: async () =>
    [
      pruneSpec('books-opt', '/tmp/out'),
      pruneSpec('books-opt', '/tmp/out', {
        selection: { only: ['mlp'], skip: ['q_proj$'], skipLayers: [1], targets: [{ pattern: 'down', sparsity: 0.5 }] },
      }),
      evaluateSpec('books-opt', '/tmp/model'),
    ].map((spec) => Buffer.from(JobSpec.encode(spec).finish())),
  open: async () => ({
    read: async (input) => {
      const spec = decode(input);
      if (spec === undefined) return;
      for (const purpose of ['run', 'plan'] as const) resolveJobSpec(spec, purpose);
    },
  }),
};

/** Bytes that are no message are the business of the servers. */
function decode(input: Buffer): JobSpec | undefined {
  try {
    return JobSpec.decode(input);
  } catch {
    return undefined;
  }
}
