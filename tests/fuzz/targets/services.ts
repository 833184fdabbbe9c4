import { connect } from 'node:net';
import { Client, credentials, Metadata, status as StatusCode, type StatusObject } from '@grpc/grpc-js';
import { parseArchitecture, SecateurError } from '@secateur/core';
import { JobSpec } from '@secateur/proto/job';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { Compute, DataType, HiddenStates, TensorRole } from '@secateur/proto/model';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { InputSite } from '@secateur/proto/statistics';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { TraceServiceDefinition } from '@secateur/proto/trace_service';
import { Cluster, ServiceProcess } from '../../support/cluster.js';
import { pruneSpec } from '../../support/jobs.js';
import { peakBytesOf } from '../engine/peak-bytes.js';
import type { Random } from '../engine/random.js';
import type { FuzzTarget, Reader } from '../engine/target.js';

const METHOD = /^\/[\w.]{1,100}\/\w{1,100}$/;
const CALL_MS = 10_000;
/** Streams that may last for an hour are left once they have begun. */
const STREAM_MS = 300;
/** A service that tells of a peer has told its reason; one that is gone has not. */
const DEFECTS: ReadonlySet<number> = new Set([StatusCode.INTERNAL, StatusCode.UNKNOWN]);
const CONFIG = {
  model_type: 'opt',
  hidden_size: 8,
  ffn_dim: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 16,
  max_position_embeddings: 8,
};
const WORDS = ['fuzz', 'block/0', 'embedding', 'head', '127.0.0.1:1', '/etc/passwd', '../', '\u0008\u0001', '\ufffd\ufffd\u0001'];

type Definition =
  typeof PruningServiceDefinition | typeof KernelServiceDefinition | typeof TensorServiceDefinition | typeof TraceServiceDefinition;
interface MessageType {
  fromPartial(value: object): object;
  encode(value: object): { finish(): Uint8Array };
}

/** Values of a request, by the name of its method. */
type Requests = Readonly<Record<string, readonly object[]>>;

function asType(type: unknown): MessageType {
  return type as MessageType;
}

/** `/package.Service/Method`, a line feed and the encoded message, for every method. */
function encodeCalls(definition: Definition, requests: Requests): Buffer[] {
  return Object.entries(definition.methods).flatMap(([name, { name: method, requestType }]) =>
    (requests[name] ?? [{}]).map((request) =>
      Buffer.concat([
        Buffer.from(`/${definition.fullName}/${method}\n`),
        asType(requestType).encode(asType(requestType).fromPartial(request)).finish(),
      ]),
    ),
  );
}

/** Nothing is there, so that no job of an input begins to work. */
const SPEC = JobSpec.fromPartial(pruneSpec('books-opt', '/tmp/secateur-fuzz/out', { model: '/tmp/secateur-fuzz/model' }));

export const orchestrator: FuzzTarget = {
  words: WORDS,
  limitMs: 60_000,
  seeds: async () => {
    const job = { jobId: 'fuzz' };
    return encodeCalls(PruningServiceDefinition, {
      planJob: [{ spec: SPEC }],
      createJob: [{ ...job, spec: SPEC }],
      listJobs: [{ pageSize: 2, pageToken: 'fuzz' }],
      ...Object.fromEntries(
        ['getJob', 'watchJob', 'cancelJob', 'pauseJob', 'resumeJob', 'getReport', 'getTrace'].map((name) => [name, [job]]),
      ),
      deleteJob: [{ ...job, deleteOutput: true }],
    }).concat(encodeCalls(TensorServiceDefinition, { fetch: [{ resource: 'fuzz', offset: 8n }] }));
  },
  open: async () => {
    const cluster = await Cluster.start({ nodes: 1 });
    return callReader(cluster.address, cluster.orchestrator, cluster);
  },
  repair: keepMethod,
};

export const kernelNode: FuzzTarget = {
  words: WORDS,
  limitMs: 60_000,
  seeds: async () => {
    const session = { sessionId: 'fuzz', shardId: 'block/0', groupIndices: [0] };
    const model = {
      architecture: parseArchitecture(CONFIG),
      compute: Compute.F32,
      hiddenStates: HiddenStates.F32,
      workload: { groups: 1, samplesPerGroup: 2, sequenceLength: 4, dataTypes: [DataType.F32] },
    };
    const projections = [{ projection: TensorRole.QUERY_WEIGHT, columns: 8, meanSquaresResource: 'fuzz' }];
    return encodeCalls(KernelServiceDefinition, {
      planSession: [model],
      openSession: [
        { ...model, sessionId: 'fuzz', jobId: 'fuzz', tensorEndpoint: '127.0.0.1:1', lease: 1n },
        { ...model, workload: undefined, sessionId: 'fuzz', jobId: 'fuzz', tensorEndpoint: '127.0.0.1:1', lease: 2n },
      ],
      loadShard: [{ ...session, shard: { id: 'block/0' } }],
      embed: [{ ...session, groups: [{ groupIndex: 0, samples: 2, sequenceLength: 4, resource: 'fuzz' }] }],
      collectStatistics: [{ ...session, sites: [InputSite.ATTENTION_INPUT], gramSites: [InputSite.ATTENTION_INPUT], sketches: 2 }],
      allocateRows: [
        { ...session, projection: TensorRole.QUERY_WEIGHT, projectionName: 'q', targetSparsity: 0.5, options: {}, statistics: {} },
      ],
      countOutliers: [{ ...session, projections, threshold: 7 }],
      measureSensitivity: [{ ...session, projections, sparsity: 0.5 }],
      findEigenvalues: [{ ...session, projections: [TensorRole.QUERY_WEIGHT] }],
      publishGramSums: [{ ...session, sites: [InputSite.ATTENTION_INPUT] }],
      reduceGramMatrices: [{ ...session, matrices: [{ columns: 8, driftRows: 1 }] }],
      applyMasks: [{ ...session, masks: [{ projection: TensorRole.QUERY_WEIGHT, resource: 'fuzz' }] }],
      propagate: [{ ...session, streams: [1] }],
      measureLoss: [{ ...session, tokens: [{ first: [1], end: [3] }] }],
      releaseShard: [session],
      closeSession: [session],
    })
      .concat(encodeCalls(TensorServiceDefinition, { fetch: [{ resource: 'fuzz', offset: 8n }] }))
      .concat(encodeCalls(TraceServiceDefinition, { drainSpans: [{ traceIds: ['00'.repeat(16)] }] }));
  },
  open: async () => {
    const args = ['node', '--listen', '127.0.0.1:0', '--threads', '1', '--memory', '256MiB', '--backend', 'cpu'];
    const { process: service, address } = await ServiceProcess.start(args);
    return callReader(address, service, { [Symbol.asyncDispose]: () => service.signal('SIGTERM') });
  },
  repair: keepMethod,
};

/** Mostly, the method is one that there is. */
function keepMethod(input: Buffer, random: Random): Buffer {
  const end = input.indexOf('\n');
  const line = input.toString('latin1', 0, Math.max(end, 0));
  if (METHOD.test(line) || random.below(8) === 0) return input;
  const [known = ''] = /\/secateur\.v1\.\w+\/\w+/.exec(input.toString('latin1')) ?? [];
  return Buffer.concat([Buffer.from(`${known}\n`), input.subarray(end + 1)]);
}

function callReader(address: string, service: ServiceProcess, owner: AsyncDisposable): Reader {
  const client = new Client(address, credentials.createInsecure(), { 'grpc.max_send_message_length': -1 });
  const read = async (input: Buffer): Promise<void> => {
    const end = input.indexOf('\n');
    const line = input.toString('latin1', 0, Math.max(end, 0));
    const path = METHOD.test(line) ? line : '/secateur.v1.Unknown/Unknown';
    const { code, details, isExplained } = await call(client, path, input.subarray(end + 1));
    requireAlive(service);
    if (DEFECTS.has(code) || (code === StatusCode.UNAVAILABLE && !isExplained)) {
      throw new Error(`${path} answered ${StatusCode[code]}: ${details.replace(/[0-9a-f-]{36}/, 'ID')}`, {
        cause: service.output.slice(-3000),
      });
    }
    if (code !== StatusCode.OK) throw new SecateurError('INVALID_REQUEST', details);
  };
  return { read, peakBytes: () => peakBytesOf(service.pid), close: () => closeAll(client, owner) };
}

async function closeAll(client: Client, owner: AsyncDisposable): Promise<void> {
  client.close();
  await owner[Symbol.asyncDispose]();
}

/** How a call ends. A stream that has begun is left after a while and counts as OK. */
function call(client: Client, path: string, message: Buffer): Promise<{ code: number; details: string; isExplained: boolean }> {
  return new Promise((resolve) => {
    const same = (bytes: Buffer): Buffer => bytes;
    const stream = client.makeServerStreamRequest(path, same, same, message, new Metadata(), { deadline: Date.now() + CALL_MS });
    let begun = false;
    stream.on('data', () => {
      if (begun) return;
      begun = true;
      setTimeout(() => stream.cancel(), STREAM_MS).unref();
    });
    stream.on('error', () => undefined);
    stream.on('status', (status: StatusObject) => {
      const { code, details, metadata } = status;
      const isExplained = metadata.get('grpc-status-details-bin').length > 0;
      if (code === StatusCode.DEADLINE_EXCEEDED && !begun) {
        resolve({ code: StatusCode.UNKNOWN, details: `no answer after ${CALL_MS} ms`, isExplained });
      } else if (code === StatusCode.CANCELLED && begun) resolve({ code: StatusCode.OK, details, isExplained });
      else resolve({ code, details, isExplained });
    });
  });
}

function requireAlive(service: ServiceProcess): void {
  if (service.exitCode !== null) throw new Error(`The service ended with ${service.exitCode}: ${service.output.slice(-1500)}`);
}

const HEAD_END = '\r\n\r\n';

/** Whole HTTP requests, byte for byte. */
export const http: FuzzTarget = {
  words: [
    ...[
      '/v1/jobs',
      '/v1/jobs:plan',
      '/v1/jobs/fuzz',
      ':watch',
      ':cancel',
      '/report',
      '/trace',
      '/v1/nodes',
      '/metrics',
      '/readyz',
      '%E0%A4%A',
    ],
    ...[
      '?pageSize=',
      '&page_token=',
      'after_sequence=',
      'Last-Event-ID: 1\r\n',
      'Accept: application/x-ndjson\r\n',
      'Origin: http://x\r\n',
    ],
    ...[
      'Authorization: Bearer x\r\n',
      'Transfer-Encoding: chunked\r\n',
      'Expect: 100-continue\r\n',
      'Content-Encoding: gzip\r\n',
      'HTTP/1.0',
    ],
    ...[
      '"spec":',
      '"prune":',
      '"sparsity":"NaN"',
      '"compute":"COMPUTE_F32"',
      '"seed":"-1"',
      '"@type":',
      'GET',
      'POST',
      'DELETE',
      'OPTIONS',
    ],
  ],
  limitMs: 60_000,
  open: async () => {
    const cluster = await Cluster.start({ nodes: 1, http: true });
    const [host = '', port = ''] = cluster.httpAddress.split(':');
    const service = cluster.orchestrator;
    return {
      read: async (input) => {
        const answer = await exchange(host, Number(port), input);
        requireAlive(service);
        const [status = ''] = /^HTTP\/1\.1 \d+/.exec(answer) ?? [];
        if (status.endsWith(' 500')) throw new Error(status, { cause: `${answer.slice(0, 500)}\n${service.output.slice(-3000)}` });
        if (!status.endsWith(' 200')) throw new SecateurError('INVALID_REQUEST', status);
      },
      peakBytes: () => peakBytesOf(service.pid),
      close: () => cluster[Symbol.asyncDispose](),
    };
  },
  repair: (input, random) => {
    const text = input.toString('latin1');
    const end = text.indexOf(HEAD_END);
    if (end === -1 || random.below(4) === 0) return input;
    const body = text.slice(end + HEAD_END.length);
    const head = text.slice(0, end).replace(/^Content-Length:.*$/im, `Content-Length: ${body.length}`);
    return Buffer.from(`${head}${HEAD_END}${body}`, 'latin1');
  },
};

/** The first bytes of the answer; whoever does not answer must close. */
function exchange(host: string, port: number, request: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = connect({ host, port });
    const limit = setTimeout(() => {
      socket.destroy();
      reject(new Error(`no answer and no end after ${CALL_MS} ms`));
    }, CALL_MS);
    socket.on('data', (part: Buffer) => {
      if (parts.length === 0) setTimeout(() => socket.destroy(), STREAM_MS).unref();
      if (parts.length < 16) parts.push(part);
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(limit);
      resolve(Buffer.concat(parts).toString('latin1'));
    });
    socket.end(request);
  });
}
