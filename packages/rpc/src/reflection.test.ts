import { describe, expect, test } from '@jest/globals';
import { Client, credentials, status } from '@grpc/grpc-js';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { startServer } from '../test/support.js';
import { serveFetch } from './index.js';

const LIST_SERVICES = 7;
const FILE_CONTAINING_SYMBOL = 4;

/** Asks one question of the reflection protocol and returns the bytes of the answer's fields. */
async function reflect(
  address: string,
  version: 'v1' | 'v1alpha',
  field: number,
  text: string,
  question = new BinaryWriter()
    .uint32((field << 3) | 2)
    .string(text)
    .finish(),
): Promise<Map<number, Uint8Array[]>> {
  const client = new Client(address, credentials.createInsecure());
  const call = client.makeBidiStreamRequest(
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    (request: Uint8Array) => Buffer.from(request),
    (answer: Buffer) => answer,
  );
  call.write(question);
  call.end();
  try {
    for await (const answer of call) return fieldsOf(answer as Buffer);
    throw new Error('No answer.');
  } finally {
    client.close();
  }
}

function fieldsOf(bytes: Uint8Array): Map<number, Uint8Array[]> {
  const fields = new Map<number, Uint8Array[]>();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === 2) fields.set(field, [...(fields.get(field) ?? []), reader.bytes()]);
    else reader.skip(wireType);
  }
  return fields;
}

describe.each(['v1', 'v1alpha'] as const)('reflection %s', (version) => {
  test('lists the services that are served', async () => {
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.reject(new Error('unused'))),
    );
    const answer = await reflect(server.address, version, LIST_SERVICES, '*');
    const services = fieldsOf(answer.get(6)![0]!)
      .get(1)!
      .map((service) => Buffer.from(fieldsOf(service).get(1)![0]!).toString());
    expect(services.sort()).toEqual(['grpc.health.v1.Health', 'secateur.v1.TensorService']);
  });

  test('refuses what is no question, and serves on', async () => {
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.reject(new Error('unused'))),
    );
    const wrong = reflect(server.address, version, LIST_SERVICES, '*', Buffer.of(0xff));
    await expect(wrong).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
    expect((await reflect(server.address, version, LIST_SERVICES, '*')).has(6)).toBe(true);
  });

  test.each(['secateur.v1.TensorService', 'secateur.v1.TensorService.Fetch', 'grpc.health.v1.Health'])('describes %s', async (symbol) => {
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.reject(new Error('unused'))),
    );
    const answer = await reflect(server.address, version, FILE_CONTAINING_SYMBOL, symbol);
    const files = fieldsOf(answer.get(4)![0]!).get(1)!;
    expect(files.some((file) => Buffer.from(file).includes(symbol.includes('Health') ? 'HealthCheckRequest' : 'FetchRequest'))).toBe(true);
  });
});
