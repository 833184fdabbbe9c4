import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import type { Server as HttpServer } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';

/** What is used of a request of Koa, by which S3rver is made. */
interface Context {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  get(header: string): string;
  status: number;
  type: string;
  body: unknown;
  readonly res: { destroy(): void };
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

export interface StoreRequest {
  readonly method: string;
  /** Bucket and key. */
  readonly path: string;
  readonly range: string;
  readonly partNumber: string | undefined;
}

/** What a test makes of a request before it is answered: an error in place of the answer, or nothing. */
export type Intervene = (request: StoreRequest, context: Context) => Promise<void> | void;

/** The one pair of keys that the server knows. */
const KEYS = { AWS_ACCESS_KEY_ID: 'S3RVER', AWS_SECRET_ACCESS_KEY: 'S3RVER' };

/** The server forgets the slash at the end of a path when it makes the signature of a request to a bucket; so it is told to look at the key's name alone. */
const LENIENT = { allowMismatchedSignatures: true };

/** An S3 server with one bucket on a free port of this machine. S3rver knows no conditions; they are added here as S3 has them. */
export class StoreServer implements AsyncDisposable {
  static readonly bucket = 'models';
  readonly requests: StoreRequest[] = [];
  intervene: Intervene = () => undefined;

  private constructor(
    private readonly server: Server,
    private readonly folder: string,
    readonly endpoint: string,
    private readonly client: S3Client,
  ) {}

  static async start(): Promise<StoreServer> {
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
    const folder = await mkdtemp(join(tmpdir(), 'secateur-store-'));
    const server = new S3rver({ address: '127.0.0.1', port: 0, directory: folder, silent: true, vhostBuckets: false, ...LENIENT });
    let store: StoreServer | undefined;
    server.middleware.unshift((context, next) => (store === undefined ? next() : store.handle(context, next)));
    const { port } = await server.run();
    const endpoint = `http://127.0.0.1:${port}`;
    const credentials = { accessKeyId: KEYS.AWS_ACCESS_KEY_ID, secretAccessKey: KEYS.AWS_SECRET_ACCESS_KEY };
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
    await client.send(new CreateBucketCommand({ Bucket: StoreServer.bucket }));
    return (store = new StoreServer(server, folder, endpoint, client));
  }

  /** By which processes reach it. */
  get environment(): Record<string, string> {
    return { ...KEYS, AWS_ENDPOINT_URL_S3: this.endpoint };
  }

  async put(key: string, content: Uint8Array | string): Promise<void> {
    await this.client.send(new PutObjectCommand({ Bucket: StoreServer.bucket, Key: key, Body: content }));
  }

  /** Puts the files of a folder and returns their URL. */
  async putFolder(folder: string, prefix: string): Promise<string> {
    for (const name of await readdir(folder)) await this.put(`${prefix}/${name}`, await readFile(join(folder, name)));
    return this.url(prefix);
  }

  async get(key: string): Promise<Buffer> {
    const { Body } = await this.client.send(new GetObjectCommand({ Bucket: StoreServer.bucket, Key: key }));
    return Buffer.from((await Body?.transformToByteArray()) ?? []);
  }

  async remove(key: string): Promise<void> {
    await this.client.send(new DeleteObjectCommand({ Bucket: StoreServer.bucket, Key: key }));
  }

  async list(prefix: string): Promise<string[]> {
    const { Contents = [] } = await this.client.send(new ListObjectsV2Command({ Bucket: StoreServer.bucket, Prefix: `${prefix}/` }));
    return Contents.map(({ Key = '' }) => Key.slice(prefix.length + 1)).sort();
  }

  url(key: string): string {
    return `s3://${StoreServer.bucket}/${key}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.destroy();
    // A request that a test never answers would keep it open.
    this.server.httpServer.closeAllConnections();
    await this.server.close();
    await rm(this.folder, { recursive: true });
  }

  private async handle(context: Context, next: () => Promise<void>): Promise<void> {
    const { method, path } = context;
    const request = {
      method,
      path: decodeURIComponent(path).slice(1),
      range: context.get('range'),
      partNumber: context.query['partNumber'],
    };
    this.requests.push(request);
    const wanted = context.get('if-match');
    await this.intervene(request, context);
    if (context.body !== undefined) return;
    if (method === 'PUT' && context.get('if-none-match') === '*' && (await this.exists(request.path))) {
      answerError(context, 412, 'PreconditionFailed');
      return;
    }
    await next();
    if (wanted !== '' && context.status < 300 && context.response.get('etag') !== wanted) answerError(context, 412, 'PreconditionFailed');
  }

  private async exists(path: string): Promise<boolean> {
    const key = path.slice(StoreServer.bucket.length + 1);
    const { Contents = [] } = await this.client.send(new ListObjectsV2Command({ Bucket: StoreServer.bucket, Prefix: key }));
    return Contents.some(({ Key }) => Key === key);
  }
}

/** An answer of the store in place of its own. */
export function answerError(context: Context, status: number, code: string): void {
  context.status = status;
  context.type = 'application/xml';
  context.body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`;
}
