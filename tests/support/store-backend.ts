import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Server as HttpServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The pair of keys of a user who may make buckets. */
export interface StoreKeys {
  readonly AWS_ACCESS_KEY_ID: string;
  readonly AWS_SECRET_ACCESS_KEY: string;
}

/** An S3 server that tests run against. */
export interface StoreBackend extends AsyncDisposable {
  readonly endpoint: string;
  readonly keys: StoreKeys;
}

/** The server tests are pointed at with SECATEUR_TEST_STORE_ENDPOINT, and the AWS_* variables that fit; undefined where they bring their own. */
const OTHER_ENDPOINT = process.env['SECATEUR_TEST_STORE_ENDPOINT'];

/** Why tests of signatures and of bucket policies cannot run; undefined when they can. */
export const accessProblem =
  OTHER_ENDPOINT === undefined ? 'S3rver checks neither signatures nor policies; see SECATEUR_TEST_STORE_ENDPOINT' : undefined;

/** The server that the environment names, or S3rver. */
export async function openBackend(): Promise<StoreBackend> {
  if (OTHER_ENDPOINT === undefined) return startS3rver();
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = process.env;
  if (AWS_ACCESS_KEY_ID === undefined || AWS_SECRET_ACCESS_KEY === undefined)
    throw new Error('SECATEUR_TEST_STORE_ENDPOINT is set; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys of that store.');
  return {
    endpoint: OTHER_ENDPOINT,
    keys: { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** What S3 answers beside the status of an error. */
export function errorBody(code: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
}

/** What is used of a request of Koa, by which S3rver is made. */
interface Context {
  readonly method: string;
  readonly path: string;
  get(header: string): string;
  readonly status: number;
  readonly response: { get(header: string): string };
}

type Middleware = (context: Context, next: () => Promise<void>) => Promise<void>;

interface Server {
  readonly middleware: Middleware[];
  readonly httpServer: HttpServer;
  run(): Promise<AddressInfo>;
  close(): Promise<void>;
}

type ServerConstructor = new (options: Readonly<Record<string, unknown>>) => Server;

const S3rver = createRequire(import.meta.url)('@20minutes/s3rver') as ServerConstructor;

/** It forgets the slash at the end of a path when it makes the signature of a request to a bucket; so it is told to look at the key's name alone. */
const LENIENT = { allowMismatchedSignatures: true };

/** S3rver on a free port of this machine. It knows no conditions; they are added here as S3 has them. */
async function startS3rver(): Promise<StoreBackend> {
  const directory = await mkdtemp(join(tmpdir(), 'secateur-store-'));
  const server = new S3rver({ address: '127.0.0.1', port: 0, directory, silent: true, vhostBuckets: false, ...LENIENT });
  server.middleware.unshift(addConditions(directory));
  const { port } = await server.run();
  return {
    endpoint: `http://127.0.0.1:${port}`,
    keys: { AWS_ACCESS_KEY_ID: 'S3RVER', AWS_SECRET_ACCESS_KEY: 'S3RVER' },
    [Symbol.asyncDispose]: async () => {
      server.httpServer.closeAllConnections();
      await server.close();
      await rm(directory, { recursive: true });
    },
  };
}

/** As AWS has them: of two that create an object at the same time, one is told to try again. */
function addConditions(directory: string): Middleware {
  const creating = new Set<string>();
  return async (context, next) => {
    const refuse = (status: number, code: string): void => {
      Object.assign(context, { status, type: 'application/xml', body: errorBody(code) });
    };
    if (context.method === 'PUT' && context.get('if-none-match') === '*') {
      const file = join(directory, `${decodeURIComponent(context.path)}._S3rver_object`);
      if (creating.has(file)) refuse(409, 'ConditionalRequestConflict');
      else if (existsSync(file)) refuse(412, 'PreconditionFailed');
      else {
        creating.add(file);
        await next().finally(() => creating.delete(file));
      }
      return;
    }
    const wanted = context.get('if-match');
    await next();
    if (wanted !== '' && context.status < 300 && context.response.get('etag') !== wanted) refuse(412, 'PreconditionFailed');
  };
}
