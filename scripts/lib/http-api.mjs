// The HTTP side of the services whose methods have google.api.http annotations: a table of routes and an OpenAPI document, both made from the
// descriptors that buf builds.
import { createFileRegistry, fromBinary, getOption, hasOption, ScalarType } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

/**
 * @import { DescEnum, DescExtension, DescField, DescMessage, DescMethod, DescService, FileRegistry, Message } from '@bufbuild/protobuf'
 * @import { DescriptorProto, EnumDescriptorProto, FileDescriptorProto } from '@bufbuild/protobuf/wkt'
 */

/** @typedef {Message & { pattern: { case?: string, value?: string }, body: string }} HttpRule */
/** @typedef {{ method: DescMethod, verb: string, path: string, parameters: DescField[], query: DescField[], hasBody: boolean }} Route */
/** @typedef {Record<string, unknown>} Schema */

const errorSchema = 'google.rpc.Status';
const introduction = `Prunes large language models. Every route is a method of the gRPC service \`secateur.v1.PruningService\`; requests and answers are its messages
as proto3 JSON. A field that is not known, or has the wrong type, is refused. 64-bit integers are strings in answers and may be numbers in requests.`;

/**
 * @param {Uint8Array} descriptors a FileDescriptorSet with source information
 * @returns {{ routes: Map<string, string>, openapi: string }} TypeScript by path relative to proto/gen, and the OpenAPI document
 */
export function describeHttpApi(descriptors) {
  const set = fromBinary(FileDescriptorSetSchema, descriptors);
  const routesOf = readRoutes(createFileRegistry(set));
  refuseAmbiguity([...routesOf.values()].flat());
  const comments = new Map(set.file.flatMap((file) => [...readComments(file)]));
  return {
    routes: new Map([...routesOf].map(([service, routes]) => [`${service.file.name}_routes.ts`, renderRoutes(service, routes)])),
    openapi: `${JSON.stringify(describeOpenApi([...routesOf.values()].flat(), comments), undefined, 1)}\n`,
  };
}

/**
 * Routes that were there and are not, or lead elsewhere.
 * @param {Uint8Array} before a FileDescriptorSet @param {Uint8Array} now another
 */
export function findLostRoutes(before, now) {
  const list = (/** @type {Uint8Array} */ descriptors) => {
    const routes = readRoutes(createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors)));
    return [...routes.values()].flat().map(({ method, verb, path }) => `${verb} ${path} of ${method.parent.typeName}/${method.name}`);
  };
  const kept = new Set(list(now));
  return list(before)
    .filter((route) => !kept.has(route))
    .map((route) => `The route ${route} is gone.`);
}

/** @param {FileRegistry} registry @returns {Map<DescService, Route[]>} */
function readRoutes(registry) {
  const services = [...registry.files].flatMap((file) => file.services).filter((service) => hasRoutes(registry, service));
  return new Map(services.map((service) => [service, service.methods.map((method) => readRoute(registry, method))]));
}

/** @param {FileRegistry} registry @returns {DescExtension} */
function annotation(registry) {
  const extension = registry.getExtension('google.api.http');
  if (extension === undefined) throw new Error('google/api/annotations.proto is imported by no .proto file.');
  return extension;
}

/** @param {FileRegistry} registry @param {DescService} service */
function hasRoutes(registry, service) {
  return service.methods.some((method) => hasOption(method, annotation(registry)));
}

/** @param {FileRegistry} registry @param {DescMethod} method @returns {Route} */
function readRoute(registry, method) {
  const name = `${method.parent.typeName}/${method.name}`;
  if (!hasOption(method, annotation(registry))) {
    throw new Error(`${name} has no google.api.http annotation, and other methods of the service have one. Give it a route.`);
  }
  if (method.methodKind !== 'unary' && method.methodKind !== 'server_streaming') throw new Error(`${name} streams requests; HTTP cannot.`);
  const { pattern, body } = /** @type {HttpRule} */ (getOption(method, annotation(registry)));
  if (pattern.case === undefined || pattern.value === undefined) throw new Error(`The annotation of ${name} has no verb and path.`);
  if (body !== '' && body !== '*') throw new Error(`The body of ${name} is ${body}; it can be "*" or absent.`);
  const { value: path } = pattern;
  if (!/^(\/([\w.-]+|\{\w+\}))+(:\w+)?$/.test(path))
    throw new Error(`The path of ${name} is ${path}; write for example /v1/jobs/{job_id}:cancel.`);
  /** @type {DescField[]} */
  const parameters = [...path.matchAll(/\{(\w+)\}/g)].map(([, field]) => {
    const found = method.input.fields.find((candidate) => candidate.name === field);
    if (found?.fieldKind !== 'scalar') throw new Error(`{${field}} in the path of ${name} is no scalar field of ${method.input.typeName}.`);
    return found;
  });
  const others = method.input.fields.filter((field) => !parameters.includes(field));
  const hasBody = body === '*';
  const unfit = hasBody ? undefined : others.find((field) => !fitsQuery(field));
  if (unfit !== undefined) throw new Error(`${unfit.name} of ${name} cannot be in a query; give the annotation body: "*".`);
  return { method, verb: pattern.case.toUpperCase(), path, parameters, query: hasBody ? [] : others, hasBody };
}

/** A time is one string in JSON. @param {DescField} field */
function fitsQuery({ fieldKind, message }) {
  if (fieldKind === 'message') return message.typeName === 'google.protobuf.Timestamp';
  return fieldKind !== 'map' && message === undefined;
}

/** @param {readonly Route[]} routes */
function refuseAmbiguity(routes) {
  /** @type {Map<string, string>} */
  const seen = new Map();
  for (const { method, verb, path } of routes) {
    const route = `${verb} ${path.replaceAll(/\{\w+\}/g, '{}')}`;
    const other = seen.get(route);
    if (other !== undefined) throw new Error(`${method.name} and ${other} have the same route, ${verb} ${path}.`);
    seen.set(route, method.name);
  }
}

/** @param {DescService} service @param {readonly Route[]} routes */
function renderRoutes(service, routes) {
  const lines = routes.map(
    ({ method, verb, path, hasBody }) => `  ${method.localName}: { verb: '${verb}', path: '${path}', hasBody: ${String(hasBody)} },`,
  );
  return `// Made from the google.api.http annotations of ${service.file.name}.proto by scripts/generate.mjs. DO NOT EDIT.

/** How each method of ${service.name} is called over HTTP: \`{name}\` in a path is a field of the request; the others are the body, or else the query. */
export const ${service.name}Routes = {
${lines.join('\n')}
} as const;
`;
}

/**
 * Comments of messages, fields, enums, enum values and methods by their full names.
 * @param {FileDescriptorProto} file
 * @returns {Generator<[string, string]>}
 */
function* readComments(file) {
  const texts = new Map(
    (file.sourceCodeInfo?.location ?? []).map(({ path, leadingComments }) => [
      path.join('.'),
      leadingComments
        .split('\n')
        .map((line) => line.trim())
        .join(' ')
        .trim(),
    ]),
  );
  /** @param {string} name @param {string} path @returns {[string, string]} */
  const comment = (name, path) => [name, texts.get(path) ?? ''];
  /** @param {EnumDescriptorProto} type @param {string} scope @param {string} path @returns {Generator<[string, string]>} */
  function* ofEnum(type, scope, path) {
    const name = `${scope}.${type.name}`;
    yield comment(name, path);
    for (const [index, value] of type.value.entries()) yield comment(`${name}.${value.name}`, `${path}.2.${String(index)}`);
  }
  /** @param {DescriptorProto} type @param {string} scope @param {string} path @returns {Generator<[string, string]>} */
  function* ofMessage(type, scope, path) {
    const name = `${scope}.${type.name}`;
    yield comment(name, path);
    for (const [index, field] of type.field.entries()) yield comment(`${name}.${field.name}`, `${path}.2.${String(index)}`);
    for (const [index, nested] of type.nestedType.entries()) yield* ofMessage(nested, name, `${path}.3.${String(index)}`);
    for (const [index, nested] of type.enumType.entries()) yield* ofEnum(nested, name, `${path}.4.${String(index)}`);
  }
  for (const [index, type] of file.messageType.entries()) yield* ofMessage(type, file.package, `4.${String(index)}`);
  for (const [index, type] of file.enumType.entries()) yield* ofEnum(type, file.package, `5.${String(index)}`);
  for (const [index, service] of file.service.entries()) {
    const name = `${file.package}.${service.name}`;
    for (const [place, method] of service.method.entries())
      yield comment(`${name}.${method.name}`, `6.${String(index)}.2.${String(place)}`);
  }
}

/** @param {readonly Route[]} routes @param {ReadonlyMap<string, string>} comments @returns {Schema} */
function describeOpenApi(routes, comments) {
  /** @type {Record<string, Record<string, unknown>>} */
  const paths = {};
  for (const route of routes) (paths[route.path] ??= {})[route.verb.toLowerCase()] = describeOperation(route, comments);
  const types = collectTypes(routes.flatMap(({ method }) => [method.input, method.output]));
  const schemas = Object.fromEntries(
    [...types.values()]
      .sort((left, right) => (left.typeName < right.typeName ? -1 : 1))
      .map((type) => [type.typeName, type.kind === 'enum' ? describeEnum(type, comments) : describeMessage(type, comments)]),
  );
  return {
    openapi: '3.1.0',
    info: {
      title: 'Secateur',
      version: 'v1',
      description: introduction.replaceAll('\n', ' '),
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{}, { token: [] }],
    paths: { ...paths, ...describeProbes() },
    components: {
      schemas: { ...schemas, [errorSchema]: describeStatus() },
      responses: {
        error: {
          description: 'What is wrong, and what to do: a google.rpc.Status. Its ErrorInfo has the reason, its BadRequest the wrong fields.',
          content: { 'application/json': { schema: refer(errorSchema) } },
        },
      },
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'Where the service asks who calls.' } },
    },
  };
}

/** @param {Route} route @param {ReadonlyMap<string, string>} comments @returns {Schema} */
function describeOperation({ method, parameters, query, hasBody }, comments) {
  const describe = (/** @type {DescField} */ field) => comments.get(`${field.parent.typeName}.${field.name}`) ?? '';
  const schema = refer(method.output.typeName);
  const streams = method.methodKind === 'server_streaming';
  const stream = 'server-sent events, each with one message as data; ends with the event `end`, or `failure` with a google.rpc.Status';
  const lastEvent = {
    name: 'Last-Event-ID',
    in: 'header',
    description: 'Only events after this one.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  };
  const given = [
    ...parameters.map((field) => ({ name: field.name, in: 'path', required: true, description: describe(field), schema: schemaOf(field) })),
    ...query.map((field) => ({ name: field.jsonName, in: 'query', description: describe(field), schema: schemaOf(field) })),
    ...(query.some(({ name }) => name === 'after_sequence') ? [lastEvent] : []),
  ];
  return {
    operationId: method.name,
    description: comments.get(`${method.parent.typeName}.${method.name}`) ?? '',
    ...(given.length === 0 ? {} : { parameters: given }),
    ...(hasBody
      ? {
          requestBody: { required: parameters.length === 0, content: { 'application/json': { schema: describeBody(method, parameters) } } },
        }
      : {}),
    responses: {
      200: streams
        ? {
            description: `A stream of messages: ${stream}. Or one message a line.`,
            content: { 'text/event-stream': { schema }, 'application/x-ndjson': { schema } },
          }
        : { description: comments.get(method.output.typeName) ?? '', content: { 'application/json': { schema } } },
      default: { $ref: '#/components/responses/error' },
    },
  };
}

/** Fields that stand in the path are not in the body. @param {DescMethod} method @param {readonly DescField[]} parameters @returns {Schema} */
function describeBody(method, parameters) {
  if (parameters.length === 0) return refer(method.input.typeName);
  const others = method.input.fields.filter((field) => !parameters.includes(field));
  return { type: 'object', properties: Object.fromEntries(others.map((field) => [field.jsonName, schemaOf(field)])) };
}

/** @param {readonly DescMessage[]} roots @returns {Map<string, DescMessage | DescEnum>} all that they are made of */
function collectTypes(roots) {
  /** @type {Map<string, DescMessage | DescEnum>} */
  const types = new Map();
  const visit = (/** @type {DescMessage | DescEnum} */ type) => {
    if (types.has(type.typeName) || type.typeName.startsWith('google.')) return;
    types.set(type.typeName, type);
    if (type.kind === 'enum') return;
    for (const field of type.fields) {
      if (field.message !== undefined) visit(field.message);
      if (field.enum !== undefined) visit(field.enum);
    }
  };
  for (const root of roots) visit(root);
  return types;
}

/** @param {DescMessage} type @param {ReadonlyMap<string, string>} comments @returns {Schema} */
function describeMessage(type, comments) {
  const choices = type.oneofs
    .filter((oneof) => oneof.fields.length > 1)
    .map((oneof) => oneof.fields.map(({ jsonName }) => `\`${jsonName}\``));
  const rules = choices.map((names) => ` At most one of ${names.join(', ')}.`);
  const properties = type.fields.map((field) => {
    const description = comments.get(`${type.typeName}.${field.name}`) ?? '';
    return [field.jsonName, description === '' ? schemaOf(field) : { description, ...schemaOf(field) }];
  });
  return {
    type: 'object',
    description: `${comments.get(type.typeName) ?? ''}${rules.join('')}`,
    properties: Object.fromEntries(properties),
  };
}

/** @param {DescEnum} type @param {ReadonlyMap<string, string>} comments @returns {Schema} */
function describeEnum(type, comments) {
  const values = type.values.map(({ name }) => `- \`${name}\`: ${comments.get(`${type.typeName}.${name}`) ?? ''}`);
  return {
    type: 'string',
    description: [comments.get(type.typeName) ?? '', '', ...values].join('\n'),
    enum: type.values.map(({ name }) => name),
  };
}

/** @param {DescField} field @returns {Schema} */
function schemaOf(field) {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarSchema(field.scalar);
    case 'enum':
      return refer(field.enum.typeName);
    case 'message':
      return messageSchema(field.message);
    case 'list':
      return { type: 'array', items: itemSchema(field.listKind === 'scalar' ? field.scalar : (field.message ?? field.enum)) };
    case 'map':
      return {
        type: 'object',
        additionalProperties: itemSchema(field.mapKind === 'scalar' ? field.scalar : (field.message ?? field.enum)),
      };
  }
}

/** @param {ScalarType | DescMessage | DescEnum} item @returns {Schema} */
function itemSchema(item) {
  if (typeof item === 'number') return scalarSchema(item);
  return item.kind === 'message' ? messageSchema(item) : refer(item.typeName);
}

/** @param {DescMessage} message @returns {Schema} */
function messageSchema({ typeName }) {
  return typeName === 'google.protobuf.Timestamp' ? { type: 'string', format: 'date-time' } : refer(typeName);
}

/** @param {ScalarType} scalar @returns {Schema} */
function scalarSchema(scalar) {
  switch (scalar) {
    case ScalarType.STRING:
      return { type: 'string' };
    case ScalarType.BYTES:
      return { type: 'string', contentEncoding: 'base64' };
    case ScalarType.BOOL:
      return { type: 'boolean' };
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return { type: 'number' };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { type: ['string', 'integer'], format: 'int64' };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: ['string', 'integer'], format: 'uint64' };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: 'integer', minimum: 0 };
    default:
      return { type: 'integer' };
  }
}

/** @returns {Schema} */
function describeStatus() {
  const detail = { type: 'object', properties: { '@type': { type: 'string' } }, required: ['@type'], additionalProperties: true };
  return {
    type: 'object',
    description: 'An error.',
    properties: {
      code: { description: 'A google.rpc.Code.', type: 'integer' },
      message: { description: 'Text for people.', type: 'string' },
      details: { description: 'google.rpc.ErrorInfo, google.rpc.BadRequest.', type: 'array', items: detail },
    },
  };
}

/** @returns {Schema} */
function describeProbes() {
  const text = (/** @type {string} */ description) => ({ description, content: { 'text/plain': { schema: { type: 'string' } } } });
  const get = (/** @type {string} */ operationId, /** @type {string} */ description, /** @type {Schema} */ responses) => ({
    get: { operationId, description, security: [{}], responses },
  });
  return {
    '/healthz': get('GetHealth', 'Whether the process lives.', { 200: text('It does.') }),
    '/readyz': get('GetReadiness', 'Whether new work is welcome.', { 200: text('It is.'), 503: text('It is not.') }),
    '/metrics': get('GetMetrics', 'Metrics as Prometheus reads them.', { 200: text('The metrics.') }),
    '/openapi.json': get('GetOpenApi', 'This document.', {
      200: { description: 'The document.', content: { 'application/json': { schema: { type: 'object' } } } },
    }),
  };
}

/** @param {string} typeName @returns {Schema} */
function refer(typeName) {
  return { $ref: `#/components/schemas/${typeName}` };
}
