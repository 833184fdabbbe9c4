import { connectivityState, Metadata, type Client } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';

const ASK_TIMEOUT_MS = 200;
const LAST_ERROR = 'Last error: ';
/** What TLS says of a certificate that is not to be trusted, or of a peer that does not speak TLS; waiting mends neither. */
const TLS_PROBLEMS = /certificate|altnames|self[- ]signed|wrong version number|packet length too long/i;

/** Why the last attempt to connect failed; empty when none has, or nothing is known. */
export async function connectionProblem(client: Client): Promise<string> {
  if (client.getChannel().getConnectivityState(false) !== connectivityState.TRANSIENT_FAILURE) return '';
  // A call is the only one that grpc-js tells. It fails at once and leaves this process only if the server has come back meanwhile.
  const details = await new Promise<string>((resolve) => {
    const nothing = Buffer.alloc(0);
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      () => nothing,
      (bytes) => bytes,
      undefined,
      new Metadata(),
      { deadline: Date.now() + ASK_TIMEOUT_MS },
      (error) => resolve(error?.details ?? ''),
    );
  });
  const start = details.indexOf(LAST_ERROR);
  return start < 0 ? '' : details.slice(start + LAST_ERROR.length).replace(/\.? Resolution note:.*$/, '');
}

/** Throws UNAUTHENTICATED when a problem is one of certificates. */
export function throwIfUntrusted(problem: string, address: string): void {
  if (!TLS_PROBLEMS.test(problem)) return;
  throw new SecateurError(
    'UNAUTHENTICATED',
    `No trusted connection to ${address}: ${problem}; check --tls-ca (SECATEUR_TLS_CA), the names in the server's certificate, and that it uses TLS.`,
  );
}
