import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { Server } from '@grpc/grpc-js';

/** Lets tools such as grpcurl ask what the server offers: the given services and the health service. */
export async function addReflection(server: Server, services: readonly string[]): Promise<void> {
  const [{ ReflectionService }, protoLoader, { protoPath }] = await Promise.all([
    import('@grpc/reflection'),
    import('@grpc/proto-loader'),
    import('grpc-health-check'),
  ]);
  const descriptors = await readFile(fileURLToPath(import.meta.resolve('@secateur/proto/descriptors')));
  const packages = { ...protoLoader.loadFileDescriptorSetFromBuffer(descriptors), ...protoLoader.loadSync(protoPath) };
  new ReflectionService(packages, { services: [...services, 'grpc.health.v1.Health'] }).addToServer(server);
}
