/** Results are sent to a store whole and once, whatever breaks on the way. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { openInput, StoreOutput } from '@secateur/checkpoint';
import { withTemporaryFolder } from '../support/paths.js';
import { accessProblem } from '../support/store-backend.js';
import { StoreServer } from '../support/store-server.js';

/** It makes two parts. */
const LARGE = randomBytes((17 << 20) + 3);
const SMALL = randomBytes(1000);

let store: StoreServer;
const earlier = { ...process.env };
beforeAll(async () => {
  store = await StoreServer.start();
  Object.assign(process.env, store.environment);
});
afterAll(async () => {
  process.env = earlier;
  await store[Symbol.asyncDispose]();
});
afterEach(() => {
  store.intervene = () => undefined;
  store.requests.length = 0;
});

interface Sending {
  readonly output: StoreOutput;
  readonly record: string;
  readonly send: () => Promise<void>;
}

/** An output under that prefix, and the way to send it. */
function withOutput(prefix: string, work: (sending: Sending) => Promise<void>, last = '{}'): Promise<void> {
  return withTemporaryFolder(async (folder) => {
    await writeFile(join(folder, 'large.bin'), LARGE);
    await writeFile(join(folder, 'small.bin'), SMALL);
    await writeFile(join(folder, 'last.json'), last);
    const output = await StoreOutput.open(store.url(prefix));
    const record = join(folder, 'uploads.jsonl');
    const send = (): Promise<void> => output.send({ folder, names: ['small.bin', 'large.bin', 'last.json'], owner: 'a', record });
    await work({ output, record, send });
  });
}

/** What was put since the last test, by its name and part. */
const sent = (): string[] =>
  store.requests
    .filter(({ method }) => method === 'PUT')
    .map(({ path, partNumber = '' }) => `${path.split('/').at(-1)} ${partNumber}`.trim())
    .sort();

async function expectWhole(prefix: string): Promise<void> {
  expect(await store.list(prefix)).toEqual(['large.bin', 'last.json', 'small.bin']);
  expect((await store.get(`${prefix}/large.bin`)).equals(LARGE)).toBe(true);
  expect((await store.get(`${prefix}/small.bin`)).equals(SMALL)).toBe(true);
}

test('an upload that the store has given up is begun anew, and what is there is not sent again', () =>
  withOutput('sent', async ({ output, record, send }) => {
    store.intervene = ({ partNumber }, exchange) => {
      if (partNumber === '2') exchange.fail(403, 'AccessDenied');
    };
    await expect(send()).rejects.toMatchObject({ message: expect.stringContaining(`Cannot write ${store.url('sent/large.bin')}`) });
    let refused = 0;
    store.intervene = ({ partNumber }, exchange) => {
      if (partNumber !== undefined && refused++ === 0) exchange.fail(404, 'NoSuchUpload');
    };
    await send();
    expect(refused).toBeGreaterThan(2);
    await expectWhole('sent');
    store.requests.length = 0;
    await send();
    expect(sent()).toEqual([]);
    await expect(output.requireOwn('b')).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    await output.removeUnfinished(record, 'a');
    expect(await store.list('sent')).toEqual([]);
  }));

test('answers that are lost do no harm, whichever they are', () =>
  withOutput('lost', async ({ send }) => {
    const lost = new Set<string>();
    store.intervene = ({ method, path, partNumber }, exchange) => {
      const name = `${method} ${path} ${partNumber}`;
      if (!lost.has(name)) exchange.cutAfter(0);
      lost.add(name);
    };
    await send();
    expect(sent()).toEqual([
      'large.bin 1',
      'large.bin 1',
      'large.bin 2',
      'large.bin 2',
      'last.json',
      'last.json',
      'small.bin',
      'small.bin',
    ]);
    store.intervene = () => undefined;
    await expectWhole('lost');
  }));

test('an upload that the store ended, and forgot, before its answer was lost is no error', () =>
  withOutput('ended', async ({ send }) => {
    let ends = 0;
    store.intervene = ({ endsUpload }, exchange) => {
      if (!endsUpload || ++ends > 2) return;
      if (ends === 1) exchange.cutAfter(0);
      else exchange.fail(404, 'NoSuchUpload');
    };
    await send();
    expect(ends).toBe(2);
    await expectWhole('ended');
  }));

test('what the store could not decide is asked again', () =>
  withOutput('undecided', async ({ send }) => {
    let conflicts = 0;
    store.intervene = ({ method, path }, exchange) => {
      if (method === 'PUT' && path.endsWith('last.json') && ++conflicts < 3) exchange.fail(409, 'ConditionalRequestConflict');
    };
    await send();
    expect(conflicts).toBe(3);
    await expectWhole('undecided');
  }));

test('of two that make one output whole at the same time, one is told so', () =>
  withOutput('raced', async (first) =>
    withOutput(
      'raced',
      async (second) => {
        const outcomes = await Promise.allSettled([first.send(), second.send()]);
        expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
        const [lost] = outcomes.filter((outcome) => outcome.status === 'rejected');
        expect(lost?.reason).toMatchObject({ reason: 'ALREADY_EXISTS', message: expect.stringContaining('was completed by another job') });
        await expectWhole('raced');
      },
      '[]',
    ),
  ));

/** S3rver escapes two of them twice when it lists. */
const ODD = `odd/my model (v1)+é~*!=%20#?${accessProblem === undefined ? "&'" : ''}`;

test('keys are taken as they are, whatever is in them', () =>
  withOutput(ODD, async ({ send }) => {
    await send();
    await expectWhole(ODD);
    const file = await openInput(store.url(`${ODD}/small.bin`));
    const read = Buffer.alloc(SMALL.byteLength);
    await file.readInto(read, 0);
    expect(read.equals(SMALL)).toBe(true);
  }));

const signed = accessProblem === undefined ? test : test.skip;
const suffix = accessProblem === undefined ? '' : ` (skipped: ${accessProblem})`;

signed(`bytes that change on the way are found by the store, which takes nothing of them${suffix}`, () =>
  withOutput('changed', async ({ send }) => {
    for (const altered of ['small.bin', 'large.bin', 'last.json']) {
      store.intervene = ({ method, path }, { body }) => {
        if (method === 'PUT' && path.endsWith(altered)) body[body.byteLength - 1]! ^= 1;
      };
      await expect(send()).rejects.toMatchObject({
        reason: 'UNAVAILABLE',
        message: expect.stringContaining(`Cannot write ${store.url(`changed/${altered}`)}: its bytes changed on the way to the store`),
      });
      expect(await store.list('changed')).not.toContain(altered);
    }
    store.intervene = () => undefined;
    await send();
    await expectWhole('changed');
  }),
);

signed(`nothing is left of what is deleted, parts and the second page of a list included${suffix}`, () =>
  withOutput('deleted', async ({ output, record, send }) => {
    store.intervene = ({ partNumber }, exchange) => {
      if (partNumber === '2') exchange.fail(403, 'AccessDenied');
    };
    await expect(send()).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    expect(await store.listUploads('deleted')).toEqual(['large.bin']);
    await output.removeUnfinished(record, 'a');
    expect([await store.list('deleted'), await store.listUploads('deleted')]).toEqual([[], []]);
    const names = Array.from({ length: 1001 }, (_, index) => `${index}.bin`);
    await Promise.all(names.map((name) => store.put(`deleted/${name}`, 'x')));
    await output.remove('last.json');
    expect(await store.list('deleted')).toEqual([]);
  }),
);
