import { describe, expect, test } from '@jest/globals';
import { identityOfCertificate } from './certificate-authenticator.js';

describe('who a certificate is of', () => {
  test.each([
    ['URI:spiffe://example.org/secateur/orchestrator', '', { role: 'orchestrator' }],
    ['DNS:node-0.nodes, URI:spiffe://example.org/secateur/kernel-node', '', { role: 'kernel-node' }],
    ['URI:spiffe://example.org/secateur/user/research/alice', '', { role: 'user', tenant: 'research', name: 'alice' }],
    ['URI:spiffe://example.org/secateur/administrator/root', '', { role: 'administrator', name: 'root', tenant: 'default' }],
    ['DNS:orchestrator.secateur.svc, DNS:secateur-orchestrator', '', { role: 'orchestrator', name: 'orchestrator.secateur.svc' }],
    ['DNS:*.kernel-node.secateur.svc.cluster.local, IP Address:10.0.0.5', 'whatever', { role: 'kernel-node' }],
    ['DNS:secateur-kernel-node-12.kernel-node.secateur.svc', '', { role: 'kernel-node' }],
    ['', 'orchestrator', { role: 'orchestrator', name: 'orchestrator' }],
    ['IP Address:127.0.0.1', 'kernel-node', { role: 'kernel-node' }],
  ])('%s %s', (alternativeNames, commonName, expected) => {
    expect(identityOfCertificate({ alternativeNames, commonName })).toMatchObject(expected);
  });

  test.each([
    ['', ''],
    ['', 'alice'],
    ['', 'administrator'],
    ['', 'user'],
    ['DNS:localhost', 'orchestrator'],
    ['DNS:orchestrators.example.org', ''],
    ['DNS:my-orchestrator.example.org', ''],
    ['DNS:example.orchestrator', ''],
    ['URI:spiffe://example.org/ns/team/sa/orchestrator', 'orchestrator'],
    ['URI:spiffe://example.org/secateur/orchestrator/x', ''],
    ['URI:spiffe://example.org/x/secateur/orchestrator', ''],
    ['URI:https://example.org/secateur/orchestrator', 'orchestrator'],
    ['URI:spiffe://example.org/secateur/user/research', ''],
    ['URI:spiffe://example.org/secateur/user/../root', ''],
    ['URI:spiffe://example.org/secateur/administrator/', ''],
    ['URI:spiffe://example.org/secateur/user//alice', ''],
    // How node:crypto writes one name that holds what looks like another.
    ['DNS:"x, URI:spiffe://example.org/secateur/administrator/eve"', ''],
    ['URI:"spiffe://example.org/secateur/administrator/a\\u0000b"', ''],
  ])('no role in %s %s', (alternativeNames, commonName) => {
    expect(() => identityOfCertificate({ alternativeNames, commonName })).toThrow(/names no role/);
  });

  test('two roles are none', () => {
    const alternativeNames = 'URI:spiffe://example.org/secateur/orchestrator, URI:spiffe://example.org/secateur/kernel-node';
    expect(() => identityOfCertificate({ alternativeNames, commonName: '' })).toThrow(/more than one role/);
  });
});
