/** The client library has all that its users write: nobody needs to know the packages it is made of. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createFileRegistry, fromBinary, type DescEnum, type DescMessage } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { expect, test } from '@jest/globals';
import * as client from '@secateur/client';
import { repositoryRoot } from '../support/paths.js';

/** Everything that the messages of a service are made of, without the requests and answers themselves. */
async function partsOf(serviceName: string): Promise<(DescMessage | DescEnum)[]> {
  const descriptors = fromBinary(FileDescriptorSetSchema, await readFile(join(repositoryRoot, 'proto/gen/secateur.binpb')));
  const service = createFileRegistry(descriptors).getService(serviceName);
  if (service === undefined) throw new Error(`There is no service ${serviceName}.`);
  const parts = new Set<DescMessage | DescEnum>();
  const add = (part: DescMessage | DescEnum): void => {
    if (parts.has(part)) return;
    parts.add(part);
    if (part.kind === 'message') addFieldsOf(part);
  };
  const addFieldsOf = (message: DescMessage): void => {
    for (const { message: inner, enum: choice } of message.fields) {
      if (inner !== undefined) add(inner);
      if (choice !== undefined) add(choice);
    }
  };
  for (const { input, output } of service.methods) {
    addFieldsOf(input);
    addFieldsOf(output);
  }
  return [...parts];
}

/** As ts-proto names it: `JobEvent_Planned` for `secateur.v1.JobEvent.Planned`. */
function nameOf({ typeName, file }: DescMessage | DescEnum): string {
  return typeName.slice(file.proto.package.length + 1).replaceAll('.', '_');
}

test('every message and enum that its methods take or give is exported', async () => {
  const parts = await partsOf('secateur.v1.PruningService');
  expect(parts.map(nameOf)).toEqual(expect.arrayContaining(['Job', 'JobState', 'JobEvent_Planned', 'JobPlan', 'PruneReport', 'Status']));
  const index = await readFile(join(repositoryRoot, 'packages/client/src/index.ts'), 'utf8');
  const exported = new Set(index.match(/\w+/g));
  expect(parts.map(nameOf).filter((name) => !exported.has(name))).toEqual([]);
  const enums = parts.filter(({ kind }) => kind === 'enum').map(nameOf);
  expect(enums.filter((name) => !(name in client))).toEqual([]);
});

test('specs, events and errors can be written and read in types', () => {
  const options: client.DeepPartial<client.AllocationOptions> = { allocation: client.Allocation.TRIM, score: client.Score.WANDA };
  const prune: client.DeepPartial<client.PruneSpec> = { model: '/models/dense', output: '/models/pruned', sparsity: 0.7, options };
  const newJob: client.NewJob = { jobId: 'dense-70', spec: { kind: { $case: 'prune', value: prune }, maximumAttempts: 3 } };
  const stateOf = ({ event }: client.JobEvent): client.JobState | undefined =>
    event?.$case === 'stateChanged' ? event.value.state : undefined;
  const hasFailed = ({ state }: client.Job): boolean => state === client.JobState.FAILED;
  const isTemporary = (error: unknown): boolean => error instanceof client.SecateurError && error.retryable;
  const time = { seconds: 0, nanos: 0 };
  const ended = { state: client.JobState.FAILED, error: undefined };
  expect(stateOf({ sequence: 1, time, event: { $case: 'stateChanged', value: ended } })).toBe(client.JobState.FAILED);
  expect(hasFailed({ state: ended.state } as client.Job)).toBe(true);
  expect(isTemporary(new client.SecateurError('UNAVAILABLE', 'away'))).toBe(true);
  expect(client.fromStatusProto({ code: 5, message: 'There is no job.', details: [] })).toMatchObject({ reason: 'NOT_FOUND' });
  expect(newJob.spec.kind?.$case).toBe('prune');
});
