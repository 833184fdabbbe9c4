import { SecateurError, type PlannedBlock } from '@secateur/core';
import { Allocation } from '@secateur/proto/allocation';
import type { JobSpec } from '@secateur/proto/job';
import type { Compute, ShardDescriptor } from '@secateur/proto/model';
import type { Workload } from '@secateur/proto/plan';
import { describeLayout, type InputRequest, type JobInput } from './job-plan.js';

/** What kind of work a job is, as far as plans need to know. */
export interface JobWork {
  readonly use: InputRequest['use'];
  readonly compute: Compute;
  readonly allocation: Allocation;
  /** Share of the weights that are dropped. */
  readonly sparsity: number;
}

/** The work and the input of a job whose defaults are filled in. */
export function workOf(kind: JobSpec['kind']): JobWork & Pick<InputRequest, 'model' | 'data'> {
  switch (kind?.$case) {
    case 'prune': {
      const { model, calibration: data, compute, sparsity, options } = kind.value;
      return { use: 'calibrate', model, data, compute, sparsity, allocation: options?.allocation ?? Allocation.TRIM };
    }
    case 'evaluate': {
      const { model, data, compute } = kind.value;
      return { use: 'evaluate', model, data, compute, sparsity: 0, allocation: Allocation.UNSPECIFIED };
    }
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** What a node with so many calibration groups will be asked to do. */
export function workloadOf(input: JobInput, { use, allocation, sparsity }: JobWork, groups: number): Workload {
  const { model, tokens } = input;
  const bytesOf = ({ shard }: PlannedBlock): number => storedBytes(describeLayout(input, shard));
  const largest = model.blocks.reduce((found, block) => (bytesOf(block) > bytesOf(found) ? block : found));
  return {
    embedding: describeLayout(input, model.embedding),
    block: describeLayout(input, largest.shard),
    head: use === 'evaluate' ? describeLayout(input, model.head) : undefined,
    groups,
    samplesPerGroup: Math.max(...input.groups.map(({ samples }) => samples)),
    sequenceLength: tokens.sequenceLength,
    allocationSamples: use === 'evaluate' ? 0 : tokens.samples,
    allocation,
    sparsity,
  };
}

export function storedBytes({ tensors }: ShardDescriptor): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}
