import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Metadata } from '@grpc/grpc-js';
import { ERROR_CATALOGUE, SecateurError, type ErrorReason } from '@secateur/core';
import { startTestServer, TestDefinition } from '../test/support.js';
import { fromStatusObject, fromStatusProto, toStatusObject, toStatusProto } from './status.js';

const REASONS = Object.keys(ERROR_CATALOGUE) as ErrorReason[];

function contents({ reason, message, violations, metadata }: SecateurError): object {
  return { reason, message, violations: [...violations], metadata: { ...metadata } };
}

async function failureOf(error: unknown): Promise<{ received: SecateurError; logged: object[] }> {
  const logged: object[] = [];
  const fail = (): never => {
    throw error;
  };
  await using server = await startTestServer({ ask: async () => fail(), list: () => fail() }, { error: (fields) => logged.push(fields) });
  const client = server.connect().client(TestDefinition);
  const ofUnary: unknown = await client.ask({}, { timeoutMs: 5_000 }).catch((caught: unknown) => caught);
  const ofStream: unknown = await client
    .list({}, { timeoutMs: 5_000 })
    .next()
    .catch((caught: unknown) => caught);
  if (!(ofUnary instanceof Error && ofStream instanceof Error)) throw new Error('No error came.');
  expect(Object.assign(ofStream, { metadata: {} })).toMatchObject({ reason: (ofUnary as SecateurError).reason });
  return { received: ofUnary as SecateurError, logged };
}

describe('errors', () => {
  test('keep reason, text, violations and metadata as a google.rpc.Status', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 60 });
    // What google.rpc.ErrorInfo allows.
    const metadataKey = fc.stringMatching(/^[a-z][a-zA-Z0-9-_]{1,63}$/);
    fc.assert(
      fc.property(
        fc.constantFrom(...REASONS),
        text,
        fc.array(fc.record({ field: text, description: text }), { maxLength: 5 }),
        fc.dictionary(metadataKey, text, { maxKeys: 5, noNullPrototype: true }),
        (reason, message, violations, metadata) => {
          const error = new SecateurError(reason, message, { violations, metadata });
          expect(contents(fromStatusProto(toStatusProto(error)))).toEqual(contents(error));
          expect(contents(fromStatusObject(toStatusObject(error), 'a call'))).toEqual(contents(error));
        },
      ),
    );
  });

  test.each(REASONS)('%s crosses a call', async (reason) => {
    const error = new SecateurError(reason, 'sparsity is 1.5\nin line 2 – “quoted”', {
      violations: [{ field: 'prune.sparsity', description: 'must lie between 0 and 1' }],
      metadata: { given: '1.5' },
    });
    const { received, logged } = await failureOf(error);
    expect(contents(received)).toEqual(contents(error));
    expect(logged).toEqual([]);
  });

  test('with texts and lists too long for trailers are cut', async () => {
    const violations = Array.from({ length: 1_000 }, (_, index) => ({ field: `field${index}`, description: 'x'.repeat(1_000) }));
    const { received } = await failureOf(new SecateurError('INVALID_REQUEST', 'y'.repeat(100_000), { violations }));
    expect(received.reason).toBe('INVALID_REQUEST');
    expect(received.message).toMatch(/^y{900,}…$/);
    expect(received.violations.length).toBeGreaterThan(10);
  });

  test('that are defects show an id to the caller and the cause to the log only', async () => {
    const defect = new TypeError('secret of the implementation');
    const { received, logged } = await failureOf(defect);
    expect(received.reason).toBe('INTERNAL');
    expect(received.message).not.toContain('secret');
    const id = /[0-9a-f-]{36}/.exec(received.message)?.[0];
    expect(logged).toHaveLength(2);
    expect(logged[0]).toMatchObject({ err: defect, errorId: id, method: 'secateur.test.TestService/Ask' });
  });

  test('of other gRPC servers are understood by their code', () => {
    const bare = (code: number, details = 'no'): SecateurError =>
      fromStatusObject({ code, details, metadata: new Metadata() }, 'Service/Call at host:1');
    expect(bare(5)).toMatchObject({ reason: 'NOT_FOUND', message: 'Service/Call at host:1: no' });
    expect(bare(15).reason).toBe('CORRUPT_DATA');
    expect(bare(13, 'Received RST_STREAM with code 2').reason).toBe('UNAVAILABLE');
    expect(bare(13).reason).toBe('INTERNAL');
    expect(bare(1).reason).toBe('UNAVAILABLE');
    const broken = new Metadata();
    broken.set('grpc-status-details-bin', Buffer.from('not a message'));
    expect(fromStatusObject({ code: 9, details: 'no', metadata: broken }, 'call').reason).toBe('FAILED_PRECONDITION');
  });
});
