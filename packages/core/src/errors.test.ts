import { describe, expect, test } from '@jest/globals';
import { ERROR_CATALOGUE, SecateurError, throwIfCancelled, type ErrorReason } from './errors.js';

describe('SecateurError', () => {
  test.each(Object.keys(ERROR_CATALOGUE) as ErrorReason[])('%s has the status of the catalogue', (reason) => {
    const { status, retryable } = ERROR_CATALOGUE[reason];
    const error = new SecateurError(reason, 'text');
    expect(error).toMatchObject({
      name: 'SecateurError',
      message: 'text',
      reason,
      violations: [],
      metadata: {},
      status,
      retryable,
    });
    expect(error).not.toHaveProperty('cause');
  });

  test('carries cause, violations and metadata', () => {
    const cause = new Error('below');
    const violations = [{ field: 'prune.sparsity', description: 'must be above 0' }];
    const error = new SecateurError('RESOURCE_EXHAUSTED', 'text', { cause, violations, metadata: { neededBytes: '7' } });
    expect(error).toMatchObject({ cause, violations, metadata: { neededBytes: '7' } });
  });
});

test('only a cancelled signal throws', () => {
  const controller = new AbortController();
  expect(() => throwIfCancelled(undefined)).not.toThrow();
  expect(() => throwIfCancelled(controller.signal)).not.toThrow();
  controller.abort('enough');
  expect(() => throwIfCancelled(controller.signal)).toThrow(expect.objectContaining({ reason: 'CANCELLED', cause: 'enough' }));
});

test('a message is never long, and keeps its begin and its end', () => {
  const { message } = new SecateurError('INVALID_DATA', `begin ${'x'.repeat(1 << 20)} end`);
  expect(message).toHaveLength(4_000);
  expect(message).toMatch(/^begin x.*x…x.*x end$/);
});
