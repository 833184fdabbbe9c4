import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { pino, type Logger } from 'pino';
import { KubernetesApi } from '../../../test/kubernetes-api.js';
import { EventRecorder } from './event-recorder.js';
import { EventSeries } from './event-series.js';
import type { Occurrence } from './prune-job-events.js';

const OBJECT = { namespace: 'prune', name: 'qwen-70', uid: 'a-uid' };
const lost = (note: string, time = new Date()): Occurrence => ({ reason: 'NodeLost', note, time });

let api: KubernetesApi;
let folder: string;
let stop: AbortController;
let series: EventSeries;
let recorder: EventRecorder;
/** Messages of the log, and who waits for one. */
let logged: string[];
let wake: () => void;

beforeEach(async () => {
  api = await KubernetesApi.start();
  folder = await mkdtemp(join(tmpdir(), 'secateur-test-'));
  process.env['KUBECONFIG'] = join(folder, 'config');
  await writeFile(process.env['KUBECONFIG'], api.kubeconfig);
  stop = new AbortController();
  series = new EventSeries(OBJECT);
  logged = [];
  wake = () => undefined;
  recorder = new EventRecorder({ identity: 'orchestrator-0', logger: listeningLogger() }, stop.signal);
});

afterEach(async () => {
  stop.abort();
  delete process.env['KUBECONFIG'];
  await api[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

function listeningLogger(): Logger {
  const write = (line: string): void => {
    logged.push((JSON.parse(line) as { msg: string }).msg);
    wake();
  };
  return pino({ level: 'debug' }, { write });
}

async function untilLogged(text: string): Promise<void> {
  while (!logged.some((message) => message.includes(text))) await new Promise<void>((resolve) => (wake = resolve));
}

async function untilRequests(count: number): Promise<void> {
  while (api.writes.length < count) await api.nextRequest();
}

test('an event is created as Kubernetes asks for it, and one that is there is left as it is', async () => {
  const event = series.add(lost('Node a is no longer used.'));
  recorder.record(OBJECT, event);
  await untilRequests(1);
  expect(api.eventsOf('qwen-70')).toEqual([
    expect.objectContaining({
      type: 'Warning',
      reason: 'NodeLost',
      note: 'Node a is no longer used.',
      regarding: { apiVersion: 'secateur.dev/v1alpha1', kind: 'PruneJob', ...OBJECT },
      reportingController: 'secateur.dev/controller',
      reportingInstance: 'orchestrator-0',
      eventTime: event.time.toISOString().replace('Z', '000Z'),
    }),
  ]);
  const another = new EventRecorder({ identity: 'orchestrator-1', logger: listeningLogger() }, stop.signal);
  another.record(OBJECT, event);
  await untilRequests(2);
  expect(api.writes.map(({ request, code }) => `${request} ${code}`)).toEqual([
    'POST /apis/events.k8s.io/v1/namespaces/prune/events 201',
    'POST /apis/events.k8s.io/v1/namespaces/prune/events 409',
  ]);
  expect(api.eventsOf('qwen-70')).toHaveLength(1);
  expect(logged).toEqual([]);
});

test('what happens again is counted in the same event, which is made anew where its time was over', async () => {
  for (let times = 1; times < 4; ++times) series.add(lost('Node a is no longer used.'));
  // Nobody wrote it before: it is created with all four.
  recorder.record(OBJECT, series.add(lost('Node a is no longer used.')));
  await untilRequests(2);
  expect(api.writes.map(({ request, code }) => `${request.split(' ')[0]} ${code}`)).toEqual(['PATCH 404', 'POST 201']);
  expect(api.eventsOf('qwen-70')).toMatchObject([{ series: { count: 4 } }]);
  const another = new EventRecorder({ identity: 'orchestrator-1', logger: listeningLogger() }, stop.signal);
  another.record(OBJECT, series.add(lost('Node a is no longer used.')));
  await untilRequests(3);
  expect(api.writes.at(-1)).toMatchObject({ request: expect.stringMatching(/^PATCH .*\/events\/qwen-70\./), code: 200 });
  expect(api.eventsOf('qwen-70')).toMatchObject([{ series: { count: 5 }, reportingInstance: 'orchestrator-0' }]);
  expect(logged).toEqual([]);
});

test('events are written at a bounded rate, and one that goes on happening every ten seconds', async () => {
  const repeated = (): void => recorder.record(OBJECT, series.add(lost('Node a is no longer used.')));
  repeated();
  await untilRequests(1);
  for (let index = 0; index < 8; ++index) {
    recorder.record(OBJECT, series.add(lost(`Node ${index} is no longer used.`)));
    repeated();
  }
  await untilRequests(9);
  const times = api.writes.map(({ atMs }) => atMs);
  for (const [index, atMs] of times.slice(1).entries()) expect(atMs - times[index]!).toBeGreaterThan(90);
  expect(api.writes.every(({ request }) => request.startsWith('POST'))).toBe(true);
});

test('a server that is away for a moment is asked again', async () => {
  api.eventsAnswer = 503;
  recorder.record(OBJECT, series.add(lost('Node a is no longer used.')));
  await untilLogged('tried again');
  api.eventsAnswer = undefined;
  while (api.eventsOf('qwen-70').length === 0) await api.nextRequest();
});

test('what the server refuses is left out, with a word in the log', async () => {
  api.eventsAnswer = 403;
  recorder.record(OBJECT, series.add(lost('Node a is no longer used.')));
  await untilLogged('left out');
  api.eventsAnswer = undefined;
  recorder.record(OBJECT, series.add(lost('Node b is no longer used.')));
  await untilRequests(2);
  expect(api.eventsOf('qwen-70')).toMatchObject([{ note: 'Node b is no longer used.' }]);
});

test('a server that never answers keeps nobody waiting, and no more than so many events', async () => {
  api.eventsAnswer = 'nothing';
  for (let index = 0; index < 1_001; ++index) recorder.record(OBJECT, series.add(lost(`Node ${index} is no longer used.`)));
  await untilLogged('too many wait');
  expect(logged).toHaveLength(1);
});
