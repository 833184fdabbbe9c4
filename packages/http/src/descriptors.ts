import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createFileRegistry, createRegistry, fromBinary, type DescMessage, type FileRegistry, type Registry } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

let registry: FileRegistry | undefined;

/** What the .proto files say about a message, by its full name. */
export function messageType(name: string): DescMessage {
  registry ??= createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(pathOf('@secateur/proto/descriptors'))));
  const type = registry.getMessage(name);
  if (type === undefined) throw new Error(`The descriptors have no message ${name}.`);
  return type;
}

/** What the details of a google.rpc.Status can be, which its JSON spells out. */
export function detailTypes(): Registry {
  return createRegistry(messageType('google.rpc.ErrorInfo'), messageType('google.rpc.BadRequest'));
}

/** The OpenAPI document of all routes. */
export function readOpenApi(): string {
  return readFileSync(pathOf('@secateur/proto/openapi'), 'utf8');
}

function pathOf(specifier: string): string {
  return fileURLToPath(import.meta.resolve(specifier));
}
