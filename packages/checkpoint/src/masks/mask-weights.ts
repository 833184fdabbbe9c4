/** What masking threads run. */
import { loadHasher } from '@secateur/core';
import Tinypool from 'tinypool';
import { applyMask, type MaskedShape } from './apply-mask.js';

export interface MaskingTask {
  readonly name: string;
  /** Row-major [rows, columns]; masked in place. */
  readonly weights: Uint8Array<ArrayBuffer>;
  readonly shape: MaskedShape;
  /** Rows bit-packed, least significant bit first, 1 = dropped. */
  readonly mask: Uint8Array;
  /** Whether to digest the weights as they come, too. */
  readonly digestsBefore: boolean;
}

export interface MaskedWeights {
  readonly weights: Uint8Array<ArrayBuffer>;
  readonly droppedPerRow: Int32Array;
  readonly digest: string;
  readonly digestBefore: string | undefined;
}

export default async function maskWeights({ name, weights, shape, mask, digestsBefore }: MaskingTask): Promise<unknown> {
  const hasher = await loadHasher();
  const digestBefore = digestsBefore ? hasher.digest(weights) : undefined;
  const droppedPerRow = await applyMask(name, weights, shape, mask);
  const masked: MaskedWeights = { weights, droppedPerRow, digest: hasher.digest(weights), digestBefore };
  const answer: unknown = { [Tinypool.transferableSymbol]: [weights.buffer], [Tinypool.valueSymbol]: masked };
  return Tinypool.move(answer as Parameters<typeof Tinypool.move>[0]);
}
