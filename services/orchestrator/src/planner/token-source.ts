import type { TokenSource } from '@secateur/checkpoint';
import { pathsOf } from '@secateur/core';
import { Sampling, type TokenSource as TokenSourceProto } from '@secateur/proto/job';

/** The source that a spec with its defaults names. */
export function readTokenSource(source: TokenSourceProto): TokenSource {
  const { samples, sequenceLength, seed, sampling, textField } = source;
  return {
    paths: pathsOf(source),
    samples,
    sequenceLength,
    seed,
    sampling: sampling === Sampling.CONCATENATED ? 'concatenated' : 'documents',
    textField,
  };
}
