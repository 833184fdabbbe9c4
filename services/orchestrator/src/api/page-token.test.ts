import { describe, expect, test } from '@jest/globals';
import { Job } from '@secateur/proto/job';
import { toTimestamp } from '../store/job-record.js';
import { pageTokenAfter, readPageToken } from './page-token.js';

describe('a page token', () => {
  test('stands for the place of a job', () => {
    const createdAt = new Date(1_800_000_000_123);
    for (const id of ['a', 'Job_1-x', 'x'.repeat(63)]) {
      const token = pageTokenAfter(Job.fromPartial({ id, createdAt: toTimestamp(createdAt) }));
      expect(token).toMatch(/^[A-Za-z0-9_-]+$/);
      expect(readPageToken(token)).toEqual({ createdAt, id });
    }
  });

  test.each(['fuzz', 'job-1', '1.a', Buffer.from('1.').toString('base64url'), Buffer.from('1.a b').toString('base64url')])(
    '%s is none',
    (token) => {
      expect(() => readPageToken(token)).toThrow(
        expect.objectContaining({ reason: 'INVALID_REQUEST', violations: [expect.objectContaining({ field: 'page_token' })] }),
      );
    },
  );
});
