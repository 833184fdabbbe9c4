import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Validator } from '@seriousme/openapi-schema-validator';
import { describeHttpApi } from './http-api.mjs';
import { runBuf } from './protobuf.mjs';
import { workspaceRoot } from './workspace-root.mjs';

const protoFolder = join(workspaceRoot, 'proto');

/** What is made of a service with these methods. @param {string} methods @param {string} [fields] of its requests */
async function describeService(methods, fields = 'string id = 1; repeated string tag = 2; Part part = 3; uint64 size = 4;') {
  const folder = mkdtempSync(join(tmpdir(), 'secateur-http-api-'));
  try {
    cpSync(join(protoFolder, 'google'), join(folder, 'google'), { recursive: true });
    mkdirSync(join(folder, 'shop/v1'), { recursive: true });
    const messages = `message Part { bytes content = 1; } message Request { ${fields} } message Response { map<string, Part> parts = 1; }`;
    const head = 'syntax = "proto3"; package shop.v1; import "google/api/annotations.proto";';
    writeFileSync(join(folder, 'shop/v1/shop.proto'), `${head}\n${messages}\n// Sells.\nservice Shop {\n${methods}\n}\n`);
    const image = join(folder, 'image.binpb');
    await runBuf(['build', folder, '-o', image]);
    return describeHttpApi(readFileSync(image));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @param {string} name @param {string} rule @param {string} [response] */
const rpc = (name, rule, response = 'Response') =>
  `  // Does ${name}.\n  rpc ${name}(Request) returns (${response}) { option (google.api.http) = {${rule}}; }`;

test('routes and their description follow the annotations', async () => {
  const { routes, openapi } = await describeService(
    [rpc('BuyPart', 'post: "/v1/parts/{id}:buy" body: "*"'), rpc('WatchParts', 'get: "/v1/parts"', 'stream Response')].join('\n'),
    'string id = 1; uint64 size = 4;',
  );
  const table = routes.get('shop/v1/shop_routes.ts');
  expect(table).toContain('export const ShopRoutes = {');
  expect(table).toContain("buyPart: { verb: 'POST', path: '/v1/parts/{id}:buy', hasBody: true },");
  const document = JSON.parse(openapi);
  expect(document.paths['/v1/parts/{id}:buy'].post).toMatchObject({
    operationId: 'BuyPart',
    description: 'Does BuyPart.',
    parameters: [{ name: 'id', in: 'path', required: true }],
    requestBody: { content: { 'application/json': { schema: { properties: { size: { format: 'uint64' } } } } } },
  });
  expect(Object.keys(document.paths['/v1/parts'].get.responses[200].content)).toEqual(['text/event-stream', 'application/x-ndjson']);
  expect(document.components.schemas['shop.v1.Part'].properties.content).toEqual({ type: 'string', contentEncoding: 'base64' });
});

test.each([
  [
    'a method without a route',
    `${rpc('Buy', 'post: "/v1/parts" body: "*"')}\n  rpc Lost(Request) returns (Response);`,
    'shop.v1.Shop/Lost has no google.api.http',
  ],
  ['a field that is not there', rpc('Get', 'get: "/v1/parts/{name}"'), '{name} in the path of shop.v1.Shop/Get'],
  ['a path that is none', rpc('Get', 'get: "v1/parts"'), 'The path of shop.v1.Shop/Get is v1/parts'],
  ['a message in a query', rpc('Get', 'get: "/v1/parts/{id}"'), 'part of shop.v1.Shop/Get cannot be in a query'],
  ['a body of one field', rpc('Buy', 'post: "/v1/parts" body: "part"'), 'The body of shop.v1.Shop/Buy is part'],
  [
    'two methods with one route',
    ['Buy', 'Sell'].map((name) => rpc(name, 'post: "/v1/parts" body: "*"')).join('\n'),
    'Sell and Buy have the same route',
  ],
])('%s is refused', async (_what, methods, message) => {
  await expect(describeService(methods)).rejects.toThrow(message);
});

test('what is committed is a valid OpenAPI 3.1 document', async () => {
  const result = await new Validator().validate(JSON.parse(readFileSync(join(protoFolder, 'gen/openapi.json'), 'utf8')));
  expect(result).toMatchObject({ valid: true });
});
