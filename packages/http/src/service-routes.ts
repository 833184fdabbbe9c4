import { fromBinary, toJson, type DescMessage, type JsonValue } from '@bufbuild/protobuf';
import { createMethodCodec, type CallContext, type MethodCodec, type ServiceDefinition, type ServiceImplementation } from '@secateur/rpc';
import { detailTypes, messageType } from './descriptors.js';
import type { StreamedMessage } from './answer-stream.js';
import { canResume, encodeRequest, type RequestParts } from './request-json.js';

/** What scripts/generate.mjs makes of the annotations of a service. */
export type RouteTable<Definition extends ServiceDefinition> = {
  readonly [Name in keyof Definition['methods']]: {
    readonly verb: 'DELETE' | 'GET' | 'PATCH' | 'POST' | 'PUT';
    /** Fields of the request are in braces. */
    readonly path: string;
    readonly hasBody: boolean;
  };
};

/** How long calls may take, by the name of their method. */
export type Timeouts<Definition extends ServiceDefinition> = { readonly [Name in keyof Definition['methods']]?: number };

/** A method that is called over HTTP. Its handler is the one that gRPC calls. */
export interface MethodRoute {
  readonly verb: 'DELETE' | 'GET' | 'PATCH' | 'POST' | 'PUT';
  readonly path: string;
  readonly hasBody: boolean;
  /** Such as `secateur.v1.PruningService/GetJob`. */
  readonly fullName: string;
  readonly timeoutMs: number;
  readonly streams: boolean;
  parse(parts: RequestParts): unknown;
  unary(request: unknown, context: CallContext): Promise<{ readonly json: string; readonly answer: unknown }>;
  stream(request: unknown, context: CallContext): AsyncGenerator<StreamedMessage, void, undefined>;
}

const UNARY_TIMEOUT_MS = 30_000;
/** Who watches for longer connects again. */
const STREAM_TIMEOUT_MS = 3_600_000;

type Handler = (request: unknown, context: CallContext) => unknown;

export function createRoutes<Definition extends ServiceDefinition>(
  definition: Definition,
  routes: RouteTable<Definition>,
  implementation: ServiceImplementation<Definition>,
  timeouts: Timeouts<Definition>,
): MethodRoute[] {
  const packageName = definition.fullName.slice(0, definition.fullName.lastIndexOf('.'));
  return Object.entries(definition.methods).map(([name, method]) => {
    const { verb, path, hasBody } = routes[name as keyof Definition['methods']];
    const codec = createMethodCodec(definition, method);
    // The keys are the same; what type belongs to which key is no longer known here.
    const handler = implementation[name as keyof Definition['methods']] as unknown as Handler;
    const [request, response] = [`${method.name}Request`, `${method.name}Response`].map((type) => messageType(`${packageName}.${type}`));
    if (request === undefined || response === undefined) throw new Error(`${codec.fullName} has no request or response.`);
    return {
      verb,
      path,
      hasBody,
      fullName: codec.fullName,
      timeoutMs: timeouts[name] ?? (method.responseStream ? STREAM_TIMEOUT_MS : UNARY_TIMEOUT_MS),
      streams: method.responseStream,
      parse: (parts) => codec.requestDeserialize(Buffer.from(encodeRequest(request, parts))),
      unary: async (message, context) => {
        const answer = await handler(message, context);
        return { json: JSON.stringify(responseToJson(codec, response, answer)), answer };
      },
      stream: async function* (message, context) {
        for await (const part of handler(message, context) as AsyncIterable<unknown>) {
          const json = responseToJson(codec, response, part);
          yield { json: JSON.stringify(json), id: canResume(request) ? sequenceOf(json) : undefined };
        }
      },
    };
  });
}

/** Answers of handlers may be partial; their JSON has every field. */
function responseToJson(codec: MethodCodec, type: DescMessage, answer: unknown): JsonValue {
  return toJson(type, fromBinary(type, codec.responseSerialize(answer)), { alwaysEmitImplicit: true, registry: detailTypes() });
}

/** The number that a stream of events goes on after. */
function sequenceOf(json: JsonValue): string | undefined {
  const event = isObject(json) ? json['event'] : undefined;
  const sequence = isObject(event) ? event['sequence'] : undefined;
  return typeof sequence === 'string' ? sequence : undefined;
}

function isObject(json: JsonValue | undefined): json is Record<string, JsonValue> {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}
