/** A store is trusted by its certificate, and one that is not says what to do. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { CertificateAuthority } from '../support/certificates.js';
import { runCommand } from '../support/command.js';
import { withTemporaryFolder } from '../support/paths.js';
import { errorBody } from '../support/store-backend.js';

test('the authority of a certificate is found by NODE_EXTRA_CA_CERTS, and asked for where it is missing', () =>
  withTemporaryFolder(async (folder) => {
    const authority = await CertificateAuthority.create(folder, 'authority');
    const { certificate, privateKey } = await authority.issue('store');
    const server = createServer({ cert: await readFile(certificate), key: await readFile(privateKey) }, (request, response) => {
      request.resume();
      response.writeHead(404, { 'content-type': 'application/xml' }).end(request.method === 'HEAD' ? undefined : errorBody('NoSuchBucket'));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    try {
      const { port } = server.address() as AddressInfo;
      const keys = { AWS_ACCESS_KEY_ID: 'KEY', AWS_SECRET_ACCESS_KEY: 'SECRET' };
      const inspect = async (variables: Readonly<Record<string, string>>): Promise<string> =>
        (
          await runCommand(['inspect', 's3://models/m'], undefined, {
            AWS_ENDPOINT_URL_S3: `https://127.0.0.1:${port}`,
            ...keys,
            ...variables,
          })
        ).stderr;
      expect(await inspect({})).toContain(
        'its certificate is not trusted; name the file of its authority in NODE_EXTRA_CA_CERTS (UntrustedCertificate, UNABLE_TO_VERIFY_LEAF_SIGNATURE)',
      );
      expect(await inspect({ NODE_EXTRA_CA_CERTS: authority.path })).toContain('the bucket does not exist');
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }));
