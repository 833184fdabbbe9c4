import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import {
  createServer,
  request as sendRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteBucketPolicyCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  PutBucketPolicyCommand,
  PutObjectCommand,
  S3Client,
  paginateListObjectsV2,
} from '@aws-sdk/client-s3';
import { errorBody, openBackend, type StoreBackend, type StoreKeys } from './store-backend.js';

export interface StoreRequest {
  readonly method: string;
  /** Bucket and key. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly range: string;
  readonly partNumber: string | undefined;
  /** Whether it makes an object of the parts that were sent. */
  readonly endsUpload: boolean;
}

/** What a test may do to a request before it goes on to the server, and to its answer. */
interface Exchange {
  /** The body that goes on: bytes changed here are changed on the way. */
  readonly body: Buffer;
  /** Answers with an error of the store; the request does not go on. */
  fail(status: number, code: string): void;
  /** Breaks the connection before more bytes of the body of the answer are through; 0 for the whole answer. */
  cutAfter(bytes: number): void;
}

export type Intervene = (request: StoreRequest, exchange: Exchange) => Promise<void> | void;

/**
 * A bucket of an S3 server, reached through a proxy on a free port of this machine that sees every request. What it passes on it leaves as it is,
 * the header Host included, so that signatures stay valid.
 */
export class StoreServer implements AsyncDisposable {
  readonly requests: StoreRequest[] = [];
  intervene: Intervene = () => undefined;

  private constructor(
    private readonly backend: StoreBackend,
    private readonly proxy: Server,
    private readonly client: S3Client,
    readonly bucket: string,
  ) {}

  static async start(): Promise<StoreServer> {
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
    const backend = await openBackend();
    const { endpoint, keys } = backend;
    const credentials = { accessKeyId: keys.AWS_ACCESS_KEY_ID, secretAccessKey: keys.AWS_SECRET_ACCESS_KEY };
    const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, credentials });
    const bucket = `secateur-test-${randomBytes(6).toString('hex')}`;
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    const proxy = createServer();
    const store = new StoreServer(backend, proxy, client, bucket);
    proxy.on('request', (request, response) => {
      // A connection that breaks is the client's to notice.
      store.handle(request, response).catch(() => response.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    return store;
  }

  get keys(): StoreKeys {
    return this.backend.keys;
  }

  /** By which processes reach it. */
  get environment(): Record<string, string> {
    const { port } = this.proxy.address() as AddressInfo;
    return { ...this.keys, AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}` };
  }

  async put(key: string, content: Uint8Array | string): Promise<void> {
    await this.client.send(new PutObjectCommand({ Bucket: this.bucket, Key: key, Body: content }));
  }

  /** Puts the files of a folder and returns their URL. */
  async putFolder(folder: string, prefix: string): Promise<string> {
    for (const name of await readdir(folder)) await this.put(`${prefix}/${name}`, await readFile(join(folder, name)));
    return this.url(prefix);
  }

  async get(key: string): Promise<Buffer> {
    const { Body } = await this.client.send(new GetObjectCommand({ Bucket: this.bucket, Key: key }));
    return Buffer.from((await Body?.transformToByteArray()) ?? []);
  }

  async remove(key: string): Promise<void> {
    await this.client.send(new DeleteObjectCommand({ Bucket: this.bucket, Key: key }));
  }

  /** Names of the objects below a prefix. */
  async list(prefix: string): Promise<string[]> {
    return (await this.keysWith(`${prefix}/`)).map((key) => key.slice(prefix.length + 1)).sort();
  }

  /** Names of the objects below a prefix that were begun in parts and are not whole. */
  async listUploads(prefix: string): Promise<string[]> {
    const { Uploads = [] } = await this.client.send(new ListMultipartUploadsCommand({ Bucket: this.bucket, Prefix: `${prefix}/` }));
    return Uploads.map(({ Key = '' }) => Key.slice(prefix.length + 1));
  }

  /** Denies everybody an action, such as `s3:GetObject`, on what lies under the prefix that is its key. */
  async deny(actions: Readonly<Record<string, string>>): Promise<void> {
    const resource = `arn:aws:s3:::${this.bucket}`;
    const Statement = Object.entries(actions).map(([prefix, Action]) => {
      const Condition = { StringLike: { 's3:prefix': `${prefix}/*` } };
      const scope = Action === 's3:ListBucket' ? { Resource: resource, Condition } : { Resource: `${resource}/${prefix}/*` };
      return { Effect: 'Deny', Principal: '*', Action, ...scope };
    });
    const Policy = JSON.stringify({ Version: '2012-10-17', Statement });
    await this.client.send(new PutBucketPolicyCommand({ Bucket: this.bucket, Policy }));
  }

  /** Ends what `deny` began. */
  async allow(): Promise<void> {
    await this.client.send(new DeleteBucketPolicyCommand({ Bucket: this.bucket }));
  }

  url(key: string): string {
    return `s3://${this.bucket}/${key}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A request that a test never answers would keep it open.
    this.proxy.closeAllConnections();
    await new Promise((resolve) => this.proxy.close(resolve));
    try {
      for (const key of await this.keysWith('')) await this.remove(key);
      await this.client.send(new DeleteBucketCommand({ Bucket: this.bucket }));
    } finally {
      this.client.destroy();
      await this.backend[Symbol.asyncDispose]();
    }
  }

  private async keysWith(prefix: string): Promise<string[]> {
    const keys: string[] = [];
    for await (const { Contents = [] } of paginateListObjectsV2({ client: this.client }, { Bucket: this.bucket, Prefix: prefix })) {
      keys.push(...Contents.map(({ Key = '' }) => Key));
    }
    return keys;
  }

  private async handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = incoming;
    const { pathname, searchParams } = new URL(url, this.backend.endpoint);
    const request = {
      method,
      path: decodeURIComponent(pathname).slice(1),
      headers,
      range: headers.range ?? '',
      partNumber: searchParams.get('partNumber') ?? undefined,
      endsUpload: method === 'POST' && searchParams.has('uploadId'),
    };
    this.requests.push(request);
    const body = await buffer(incoming);
    let limit = Infinity;
    const exchange: Exchange = {
      body,
      fail: (status, code) => {
        outgoing.writeHead(status, { 'content-type': 'application/xml' }).end(method === 'HEAD' ? undefined : errorBody(code));
      },
      cutAfter: (bytes) => (limit = bytes),
    };
    await this.intervene(request, exchange);
    if (outgoing.writableEnded) return;
    await this.passOn(incoming, body, outgoing, limit);
  }

  private async passOn({ method, url, headers }: IncomingMessage, body: Buffer, outgoing: ServerResponse, limit: number): Promise<void> {
    // The proxy has told the client already to continue.
    const { expect: _, connection: __, ...passed } = headers;
    const { hostname, port } = new URL(this.backend.endpoint);
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      sendRequest({ hostname, port, path: url, method, headers: passed }, resolve).on('error', reject).end(body);
    });
    if (limit === 0) {
      outgoing.destroy();
      answer.destroy();
      return;
    }
    outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
    let left = limit;
    for await (const part of answer as AsyncIterable<Buffer>) {
      outgoing.write(part.subarray(0, left));
      left -= part.byteLength;
      if (left <= 0) {
        outgoing.destroy();
        return;
      }
    }
    outgoing.end();
  }
}
