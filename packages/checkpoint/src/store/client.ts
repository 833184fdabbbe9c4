import type * as StoreSdk from '@aws-sdk/client-s3';

const CONNECT_TIMEOUT_MS = 10_000;
/** A connection on which nothing moves for so long is given up. */
const IDLE_TIMEOUT_MS = 30_000;
/** Tries of one request. What broke later, while bytes came, is asked for anew by who reads. */
const REQUEST_ATTEMPTS = 4;

export interface Store {
  readonly sdk: typeof StoreSdk;
  readonly client: StoreSdk.S3Client;
}

let opened: Promise<Store> | undefined;

/**
 * The client of the store. Credentials, region and endpoint come from where the AWS tools look for them: the environment, profiles, the token of a
 * service account, the machine. Made at its first use, since loading the SDK takes half a second.
 */
export function openStore(): Promise<Store> {
  return (opened ??= open());
}

async function open(): Promise<Store> {
  const { env } = process;
  // The SDK announces which of its later versions will leave this Node behind; the lock file says which version this is.
  env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';
  const sdk = await import('@aws-sdk/client-s3');
  const hasEndpoint = (env['AWS_ENDPOINT_URL_S3'] ?? env['AWS_ENDPOINT_URL'] ?? '') !== '';
  const region = env['AWS_REGION'] ?? env['AWS_DEFAULT_REGION'] ?? (hasEndpoint ? 'us-east-1' : undefined);
  const client = new sdk.S3Client({
    maxAttempts: REQUEST_ATTEMPTS,
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
    // Asked for where whole objects are read; there is none for a range.
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Stores of one's own seldom have a name for each bucket, and any region does for them.
    forcePathStyle: hasEndpoint,
    ...(region === undefined ? {} : { region }),
  });
  return { sdk, client };
}
