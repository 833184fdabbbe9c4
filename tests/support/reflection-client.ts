import { fileURLToPath } from 'node:url';
import { credentials, loadPackageDefinition, type Client, type GrpcObject, type ServiceClientConstructor } from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer, loadSync } from '@grpc/proto-loader';
import { BinaryWriter } from '@bufbuild/protobuf/wire';

type Call = (request: object, options: { readonly deadline: number }, callback: (error: Error | null, answer: unknown) => void) => void;
type StreamCall = (request: object, options: { readonly deadline: number }) => AsyncIterable<unknown>;

interface ReflectionAnswer {
  readonly file_descriptor_response?: { readonly file_descriptor_proto: readonly Buffer[] };
}

const REFLECTION = fileURLToPath(import.meta.resolve('@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto'));
const TIMEOUT_MS = 60_000;

/** A client that knows nothing of us beforehand, as grpcurl: it asks the server what its service is like. */
export class ReflectionClient {
  private constructor(private readonly stub: Client & Readonly<Record<string, Call | StreamCall>>) {}

  static async connect(address: string, service: string): Promise<ReflectionClient> {
    const reflection = constructorOf(
      loadPackageDefinition(loadSync(REFLECTION, { keepCase: true })),
      'grpc.reflection.v1.ServerReflection',
    );
    const asker = new reflection(address, credentials.createInsecure());
    const call = (asker as unknown as { ServerReflectionInfo(): NodeJS.ReadWriteStream }).ServerReflectionInfo();
    try {
      call.write({ file_containing_symbol: service } as never);
      for await (const answer of call as unknown as AsyncIterable<ReflectionAnswer>) {
        const files = answer.file_descriptor_response?.file_descriptor_proto ?? [];
        const definition = loadPackageDefinition(loadFileDescriptorSetFromBuffer(toFileSet(files), { enums: String, longs: String }));
        const stub = new (constructorOf(definition, service))(address, credentials.createInsecure());
        return new ReflectionClient(stub as unknown as ReflectionClient['stub']);
      }
      throw new Error(`Nothing was said about ${service}.`);
    } finally {
      call.end();
      asker.close();
    }
  }

  call(method: string, request: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const unary = this.stub[method]!.bind(this.stub) as Call;
      unary(request, { deadline: Date.now() + TIMEOUT_MS }, (error, answer) => {
        if (error === null) resolve(answer);
        else reject(error);
      });
    });
  }

  stream(method: string, request: object): AsyncIterable<unknown> {
    const stream = this.stub[method]!.bind(this.stub) as StreamCall;
    return stream(request, { deadline: Date.now() + TIMEOUT_MS });
  }

  close(): void {
    this.stub.close();
  }
}

/** The bytes of a FileDescriptorSet. */
function toFileSet(files: readonly Uint8Array[]): Buffer {
  const writer = new BinaryWriter();
  for (const file of files) writer.uint32(10).bytes(file);
  return Buffer.from(writer.finish());
}

function constructorOf(definition: GrpcObject, name: string): ServiceClientConstructor {
  return name.split('.').reduce<unknown>((part, key) => (part as GrpcObject)[key], definition) as ServiceClientConstructor;
}
