import { describe, expect, test } from '@jest/globals';
import { newToken } from './new-token.js';
import { createServiceLogger } from './service-logger.js';

const { token } = newToken({ name: 'alice', tenant: 'research', role: 'user' });
const WEB_TOKEN = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl';
const PASSWORD = 'pa55/w0rd!';
const KEY = '-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n';
const SECRETS = [token, WEB_TOKEN, PASSWORD, 'MIGHAgEAMBMGByqGSM49', 'b3BlbiBzZXNhbWU'];

function logged(...entries: readonly (readonly [object, string])[]): string {
  let text = '';
  const logger = createServiceLogger({ name: 'test', level: 'info' }, { write: (line) => (text += line) });
  for (const [fields, message] of entries) logger.info(fields, message);
  return text;
}

describe('the log of a service', () => {
  test('holds no secrets, wherever they are written', () => {
    const text = logged(
      [{ token, authorization: `Bearer ${WEB_TOKEN}` }, `with ${token} in it`],
      [{ call: { headers: { authorization: 'Basic b3BlbiBzZXNhbWU=' } } }, 'Authorization: Basic b3BlbiBzZXNhbWU='],
      [{ err: new Error(`cannot connect to postgres://secateur:${encodeURIComponent(PASSWORD)}@db:5432/jobs`) }, 'failed'],
      [{ databaseUrl: `postgres://secateur:${PASSWORD}@db/jobs`, nested: { privateKey: KEY } }, KEY],
      [{ why: `Bearer ${WEB_TOKEN} was refused` }, WEB_TOKEN],
    );
    const lines = text.trim().split('\n');
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(() => JSON.parse(line) as unknown).not.toThrow();
    for (const secret of [...SECRETS, encodeURIComponent(PASSWORD)]) expect(text).not.toContain(secret);
    expect(text).toContain('postgres://secateur:[hidden]@db:5432/jobs');
  });

  test.each(['a.', '.eyJ-', 'eyJabcdef', 'a://b:', 'Bearer ', '-----BEGIN PRIVATE KEY-----', '-----BEGIN A'])(
    'takes long texts of %j',
    (piece) => {
      const started = performance.now();
      logged([{}, piece.repeat(2 ** 18 / piece.length)]);
      expect(performance.now() - started).toBeLessThan(2_000);
    },
  );

  test('keeps what is no secret', () => {
    const text = logged([{ address: '127.0.0.1:7400', jobId: 'qwen-70', url: 'https://db:5432/x', tokens: 3 }, 'token file was read']);
    expect(JSON.parse(text)).toMatchObject({
      address: '127.0.0.1:7400',
      jobId: 'qwen-70',
      url: 'https://db:5432/x',
      tokens: 3,
      msg: 'token file was read',
    });
  });
});
