import { readFile } from 'node:fs/promises';
import { Duplex } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type {
  handleBidiStreamingCall,
  MethodDefinition,
  Server,
  ServerDuplexStream,
  ServiceDefinition,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import { toStatusObject } from './status.js';

const METHOD = 'ServerReflectionInfo';
const PATHS = ['v1', 'v1alpha'].map((version) => `/grpc.reflection.${version}.ServerReflection/${METHOD}`);

/** How one version of the reflection protocol is served. */
interface Reflection {
  readonly codec: MethodDefinition<unknown, unknown>;
  readonly handle: handleBidiStreamingCall<unknown, unknown>;
}

/**
 * Lets tools such as grpcurl ask what the server offers: the given services and the health service.
 * Descriptions are loaded by the first who asks, since loading takes longer than all else that a server does to start.
 */
export function addReflection(server: Server, services: readonly string[]): void {
  let loading: Promise<ReadonlyMap<string, Reflection>> | undefined;
  for (const path of PATHS) {
    const serve = async (call: ServerDuplexStream<Buffer, Buffer>): Promise<void> => {
      loading ??= loadReflections(services);
      const reflection = (await loading).get(path);
      if (reflection === undefined) throw new Error(`The library does not serve ${path}.`);
      bridge(call, reflection);
    };
    server.addService(
      { [METHOD]: bytesMethod(path) },
      {
        [METHOD]: (call: ServerDuplexStream<Buffer, Buffer>) => {
          serve(call).catch((cause: unknown) => fail(call, cause));
        },
      },
    );
  }
}

/** Lets the library's handler see messages of a call that brings and takes bytes. */
function bridge(call: ServerDuplexStream<Buffer, Buffer>, { codec, handle }: Reflection): void {
  const messages = new Duplex({
    objectMode: true,
    read: () => undefined,
    write: (answer, _encoding, done) => void call.write(codec.responseSerialize(answer), done),
    final: (done) => {
      call.end();
      done();
    },
  });
  handle(messages as unknown as ServerDuplexStream<unknown, unknown>);
  call.on('data', (request: Buffer) => {
    try {
      messages.push(codec.requestDeserialize(request));
    } catch (cause) {
      fail(call, cause);
    }
  });
  call.once('end', () => messages.push(null));
}

function fail(call: ServerDuplexStream<Buffer, Buffer>, cause: unknown): void {
  call.emit(
    'error',
    toStatusObject(new SecateurError('INVALID_REQUEST', 'The question is no message of the reflection service.', { cause })),
  );
}

/** What the library would add to a server, by path. */
async function loadReflections(services: readonly string[]): Promise<ReadonlyMap<string, Reflection>> {
  const [{ ReflectionService }, protoLoader, { protoPath }] = await Promise.all([
    import('@grpc/reflection'),
    import('@grpc/proto-loader'),
    import('grpc-health-check'),
  ]);
  const descriptors = await readFile(fileURLToPath(import.meta.resolve('@secateur/proto/descriptors')));
  const packages = { ...protoLoader.loadFileDescriptorSetFromBuffer(descriptors), ...protoLoader.loadSync(protoPath) };
  const reflections = new Map<string, Reflection>();
  const addService = (definition: ServiceDefinition, implementation: UntypedServiceImplementation): void => {
    const codec = definition[METHOD];
    if (codec === undefined) return;
    const handle = implementation[METHOD] as handleBidiStreamingCall<unknown, unknown>;
    reflections.set(codec.path, { codec, handle });
  };
  const library = new ReflectionService(packages, { services: [...services, 'grpc.health.v1.Health'] });
  library.addToServer({ addService });
  return reflections;
}

function bytesMethod(path: string): MethodDefinition<Buffer, Buffer> {
  const identity = (bytes: Buffer): Buffer => bytes;
  return {
    path,
    requestStream: true,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}
