import { expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { pino } from 'pino';
import { auditActions } from './audit.js';
import { isAudited } from './roles.js';

test('an action is written when it is over, with what became of it, and changes nothing of that', async () => {
  const lines: string[] = [];
  const audit = auditActions(pino({}, { write: (line) => lines.push(line) }));
  const action = { caller: { name: 'time-to-live', tenant: 'research' }, method: 'DeleteJob', jobId: 'old' } as const;
  const before = audit(action, () => Promise.resolve(7));
  expect(lines).toEqual([]);
  expect(await before).toBe(7);
  const refused = new SecateurError('UNAVAILABLE', 'The store is away.');
  await expect(audit(action, () => Promise.reject(refused))).rejects.toBe(refused);
  await expect(audit(action, () => Promise.reject(new Error('A defect.')))).rejects.toThrow('A defect.');
  const method = 'secateur.v1.PruningService/DeleteJob';
  const written = lines.map((line) => JSON.parse(line) as object);
  const who = { audit: true, caller: 'time-to-live', tenant: 'research', method, jobId: 'old' };
  expect(written).toMatchObject(['OK', 'UNAVAILABLE', 'INTERNAL'].map((outcome) => ({ ...who, outcome })));
  expect(isAudited(method)).toBe(true);
});
