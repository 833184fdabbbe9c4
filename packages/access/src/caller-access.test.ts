import { describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { CallerAccess, type CallerAccessOptions } from './caller-access.js';
import { certificateAuthenticator } from './certificate-authenticator.js';

const LIST = { method: 'secateur.v1.PruningService/ListJobs', peer: '10.0.0.9:1', certificate: undefined, authorization: undefined };
const FETCH = { ...LIST, method: 'secateur.v1.TensorService/Fetch' };
const USER = { commonName: '', alternativeNames: 'URI:spiffe://test/secateur/user/research/alice' };
const NODE = { commonName: '', alternativeNames: 'URI:spiffe://test/secateur/kernel-node' };

function create(changes: Partial<CallerAccessOptions> = {}): { access: CallerAccess; lines: string[] } {
  const lines: string[] = [];
  const logger = pino({}, { write: (line) => lines.push(line) });
  const options = { authenticators: [certificateAuthenticator], verifiesCertificates: true, callsPerSecond: 5, logger, ...changes };
  return { access: new CallerAccess(options), lines };
}

describe('admission', () => {
  test('limits each user by itself and processes of the cluster not at all', async () => {
    const { access } = create();
    const other = { commonName: '', alternativeNames: 'URI:spiffe://test/secateur/user/research/bob' };
    for (let call = 0; call < 5; call++) await access.admit({ ...LIST, certificate: USER });
    await expect(access.admit({ ...LIST, certificate: USER })).rejects.toMatchObject({
      reason: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('more than 5 calls per second (--calls-per-second)'),
    });
    expect(await access.admit({ ...LIST, certificate: other })).toEqual({ name: 'bob', tenant: 'research', administrator: false });
    for (let call = 0; call < 20; call++) await access.admit({ ...FETCH, certificate: NODE });
  });

  test('does not ask processes of the cluster who they are where they cannot tell', async () => {
    const { access } = create({ verifiesCertificates: false });
    expect(await access.admit(FETCH)).toMatchObject({ name: 'nobody', administrator: false });
    await expect(access.admit(LIST)).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
    await expect(create().access.admit(FETCH)).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
  });

  test('a token that is not known is not made up for by a certificate', async () => {
    const { access } = create();
    const call = { ...LIST, certificate: USER };
    await expect(access.admit({ ...call, authorization: 'Bearer guess' })).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
    await expect(access.admit({ ...call, authorization: 'Basic YTpi' })).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
  });

  test('writes refusals to the log, without what was brought, and not without end', async () => {
    const { access, lines } = create();
    for (let call = 0; call < 50; call++) {
      await access.admit({ ...LIST, authorization: 'Bearer guessed-token' }).catch(() => undefined);
    }
    expect(lines).toHaveLength(20);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ audit: true, method: LIST.method, peer: LIST.peer, outcome: 'UNAUTHENTICATED' });
    expect(lines.join('')).not.toContain('guessed-token');
  });
});
