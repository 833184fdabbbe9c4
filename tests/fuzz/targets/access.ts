import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createServiceLogger } from '@secateur/access';
import { identityOfCertificate } from '../../../packages/access/dist/certificate-authenticator.js';
import { hideSecrets } from '../../../packages/access/dist/hide-secrets.js';
import { TokenFile } from '../../../packages/access/dist/token-file.js';
import { issuerOfToken } from '../../../packages/access/dist/web-token.js';
import type { FuzzTarget } from '../engine/target.js';

/** A token file, a token, names of a certificate and a line of a log are all texts that others wrote. */
export const access: FuzzTarget = {
  words: [
    ...['"name":', '"tenant":', '"role":"user"', '"sha256":', 'Bearer ', 'secateur_', 'eyJhbGciOiJIUzI1NiJ9.', 'https://a:b@c', '.'],
    ...['URI:spiffe://a/secateur/user/t/n', 'DNS:orchestrator', ', ', '-----BEGIN PRIVATE KEY-----', '-----END PRIVATE KEY-----', '"'],
  ],
  watched: ['packages/access/', 'node_modules/jose/'],
  limitMs: 2_000,
  open: async (folder) => {
    const path = join(folder, 'tokens.json');
    const logger = createServiceLogger({ name: 'fuzz', level: 'error' });
    return {
      read: async (input) => {
        const text = input.toString('utf8');
        hideSecrets(text);
        issuerOfToken(text);
        await writeFile(path, input);
        try {
          using file = await TokenFile.open(path, logger);
          await file.authenticate({ token: text, certificate: undefined });
        } finally {
          identityOfCertificate({ commonName: text, alternativeNames: text });
        }
      },
    };
  },
};
