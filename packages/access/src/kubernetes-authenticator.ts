import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { SecateurError } from '@secateur/core';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { z } from 'zod';
import { TENANT_PATTERN, unauthenticated, type Authenticator, type Credentials, type Identity } from './authenticator.js';
import { issuerOfToken } from './web-token.js';

/** Tokens must be made for us: those for the API server itself would let whoever gets them use the cluster. */
const KUBERNETES_AUDIENCE = 'secateur';

const SERVICE_ACCOUNT_FOLDER = '/var/run/secrets/kubernetes.io/serviceaccount';
const TIMEOUT_MS = 5_000;
const MAXIMUM_ANSWER_BYTES = 1 << 20;
/** How long an answer counts. A service account that is deleted loses access after this time. */
const REMEMBERED_MS = 60_000;
const MAXIMUM_REMEMBERED = 1_000;
/** Tokens that were not known to be valid, from whomever; keeps callers from flooding the API server through us. */
const REVIEWS_PER_SECOND = 20;

const answerSchema = z.object({
  status: z.object({
    authenticated: z.boolean().optional(),
    user: z.object({ username: z.string() }).optional(),
    audiences: z.array(z.string()).optional(),
  }),
});

export interface KubernetesApi {
  readonly host: string;
  readonly port: number;
  /** Holds `token` and `ca.crt`, which the kubelet renews. */
  readonly serviceAccountFolder: string;
}

interface Remembered {
  readonly identity: Promise<Identity>;
  readonly untilMs: number;
}

/** Tokens of service accounts, which the Kubernetes API server is asked about (TokenReview). The tenant is the namespace. */
export class KubernetesAuthenticator implements Authenticator {
  private readonly remembered = new Map<string, Remembered>();
  /** Tokens that were valid when the API was asked last, the latest at the end: they are asked for again, however many others come meanwhile. */
  private readonly valid = new Set<string>();
  private readonly limiter = new RateLimiterMemory({ points: REVIEWS_PER_SECOND, duration: 1 });

  constructor(private readonly api: KubernetesApi) {}

  authenticate({ token }: Credentials): Promise<Identity | undefined> {
    if (token === undefined || issuerOfToken(token) === undefined) return Promise.resolve(undefined);
    const key = createHash('sha256').update(token).digest('hex');
    const known = this.remembered.get(key);
    if (known !== undefined && performance.now() < known.untilMs) return known.identity;
    const identity = this.review(token, key);
    this.remembered.delete(key);
    this.remembered.set(key, { identity, untilMs: performance.now() + REMEMBERED_MS });
    dropOldest(this.remembered);
    identity.then(
      () => {
        this.valid.delete(key);
        this.valid.add(key);
        dropOldest(this.valid);
      },
      (error: unknown) => {
        // That a token is not valid is remembered; that nobody could be asked is not.
        if (error instanceof SecateurError && error.reason === 'UNAUTHENTICATED') this.valid.delete(key);
        else this.remembered.delete(key);
      },
    );
    return identity;
  }

  private async review(token: string, key: string): Promise<Identity> {
    if (!this.valid.has(key)) {
      await this.limiter.consume('reviews').catch(() => {
        throw new SecateurError('RESOURCE_EXHAUSTED', `More than ${REVIEWS_PER_SECOND} new Kubernetes tokens per second; try again later.`);
      });
    }
    const { status } = await this.ask(token);
    if (status.authenticated !== true || status.audiences?.includes(KUBERNETES_AUDIENCE) !== true) {
      throw unauthenticated(`Kubernetes does not know the token, or it is not for the audience ${KUBERNETES_AUDIENCE}.`);
    }
    const username = status.user?.username ?? '';
    const namespace = /^system:serviceaccount:(?<namespace>[^:]+):[^:]+$/.exec(username)?.groups?.['namespace'];
    if (namespace === undefined || !TENANT_PATTERN.test(namespace)) {
      throw unauthenticated(`The token belongs to ${JSON.stringify(username)}, which is no service account.`);
    }
    return { name: username, tenant: namespace, role: 'user' };
  }

  private async ask(token: string): Promise<z.infer<typeof answerSchema>> {
    const { host, port, serviceAccountFolder } = this.api;
    try {
      const [ownToken, ca] = await Promise.all([
        readFile(join(serviceAccountFolder, 'token'), 'utf8'),
        readFile(join(serviceAccountFolder, 'ca.crt')),
      ]);
      const review = {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        spec: { token, audiences: [KUBERNETES_AUDIENCE] },
      };
      const agent = new Agent({ ca });
      const path = '/apis/authentication.k8s.io/v1/tokenreviews';
      return answerSchema.parse(JSON.parse(await post({ agent, host, port, path }, ownToken.trim(), JSON.stringify(review))));
    } catch (cause) {
      throw new SecateurError('UNAVAILABLE', `The Kubernetes API at ${host}:${port} cannot be asked about a token; try again later.`, {
        cause,
      });
    }
  }
}

function dropOldest(tokens: Map<string, unknown> | Set<string>): void {
  for (const oldest of tokens.keys()) {
    if (tokens.size <= MAXIMUM_REMEMBERED) return;
    tokens.delete(oldest);
  }
}

/** The API server of the cluster this process runs in; INVALID_REQUEST where it runs in none. */
export function kubernetesApi(environment: NodeJS.ProcessEnv = process.env): KubernetesApi {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (host === undefined || port === undefined) {
    const description = 'needs KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, which pods of a cluster have';
    throw new SecateurError('INVALID_REQUEST', `Kubernetes tokens cannot be used: --kubernetes-tokens ${description}.`, {
      violations: [{ field: '--kubernetes-tokens', description }],
    });
  }
  return { host, port: Number(port), serviceAccountFolder: SERVICE_ACCOUNT_FOLDER };
}

interface Target {
  readonly agent: Agent;
  readonly host: string;
  readonly port: number;
  readonly path: string;
}

function post(target: Target, token: string, body: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
    const call = request({ ...target, method: 'POST', headers, signal: AbortSignal.timeout(TIMEOUT_MS) }, (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        answer += text;
        if (answer.length > MAXIMUM_ANSWER_BYTES) call.destroy(new Error('the answer is too long'));
      });
      response.once('error', reject).once('end', () => {
        if (response.statusCode === 200 || response.statusCode === 201) resolve(answer);
        else reject(new Error(`it answers with status ${response.statusCode}`));
      });
    });
    call.once('error', reject).end(body);
  });
}
