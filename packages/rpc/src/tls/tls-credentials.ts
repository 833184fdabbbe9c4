import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import { experimental, type ChannelCredentials, type ChannelOptions, type ServerCredentials } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import type { HostPort } from '../host-port.js';
import { readTlsFiles, SYSTEM_AUTHORITIES, type TlsFiles, type TlsIdentity, type TlsMaterial } from './tls-files.js';
import { watchFiles } from './watch-files.js';

type CertificateProvider = experimental.CertificateProvider;
type IdentityListener = experimental.IdentityCertificateUpdateListener;
type AuthoritiesListener = experimental.CaCertificateUpdateListener;

/** Files that did not fit may do so later without a change: a certificate whose time begins when the clock of this machine comes to it, a disk that fails. */
const RETRY_MS = 60_000;

/** How a channel is made secure. */
export interface SecureChannel {
  readonly credentials: ChannelCredentials;
  readonly options: ChannelOptions;
}

/** Told of what goes wrong while files are read anew. */
export interface TlsLogger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/**
 * The certificates of a process, for its servers and for its connections to others. Files that change are read again and count for
 * connections that are made from then on; files that do not fit together, as in the middle of a change, leave those before in force.
 */
export class TlsCredentials implements Disposable {
  private readonly identityListeners = new Set<IdentityListener>();
  private readonly authoritiesListeners = new Set<AuthoritiesListener>();
  private readonly watch: Disposable;
  private retry: NodeJS.Timeout | undefined;

  private constructor(
    private readonly files: TlsFiles,
    private material: TlsMaterial,
    private readonly logger: TlsLogger | undefined,
    private readonly retryMs: number,
  ) {
    const paths = [files.certificate, files.privateKey, files.authorities].filter(
      (path): path is string => path !== undefined && path !== SYSTEM_AUTHORITIES,
    );
    this.watch = watchFiles(paths, () => this.reload());
  }

  /** Reads the files and follows their changes; INVALID_REQUEST names the one that is wrong. Those who read them end that by disposing of them. */
  static async load(files: TlsFiles, logger?: TlsLogger, retryMs = RETRY_MS): Promise<TlsCredentials> {
    return new TlsCredentials(files, await readTlsFiles(files), logger, retryMs);
  }

  /** Whether a server verifies the certificates of its callers: by authorities that were chosen for that. */
  get verifiesCallers(): boolean {
    return this.files.authorities !== undefined && this.files.authorities !== SYSTEM_AUTHORITIES;
  }

  /** Callers are asked for a certificate and may have none: who they are is judged call by call, which can say what is missing. */
  serverCredentials(): ServerCredentials {
    this.requireIdentity();
    return experimental.createCertificateProviderServerCredentials(this.provider, this.verifiesCallers ? this.provider : null, false);
  }

  /** For a server that is not of gRPC: the listener is given the certificate and its key at once, and again whenever they are read anew. */
  followIdentity(listener: (identity: TlsIdentity) => void): Disposable {
    listener(this.requireIdentity());
    const follow: IdentityListener = (identity) => {
      if (identity !== null) listener(identity);
    };
    this.identityListeners.add(follow);
    return { [Symbol.dispose]: () => void this.identityListeners.delete(follow) };
  }

  channel({ host }: HostPort): SecureChannel {
    const identity = this.material.identity === undefined ? null : this.provider;
    const name = host.replace(/^\[|\]$/g, '');
    if (isIP(name) === 0) {
      return { credentials: experimental.createCertificateProviderChannelCredentials(this.provider, identity), options: {} };
    }
    // grpc-js sends what it connects to as the name of the server, which must not be an address (RFC 6066); the certificate is held to it.
    return {
      credentials: experimental.createCertificateProviderChannelCredentials(this.provider, identity, {
        checkServerIdentity: (_name, certificate) => checkServerIdentity(name, certificate),
      }),
      options: { 'grpc.ssl_target_name_override': 'address.invalid' },
    };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.retry);
    this.watch[Symbol.dispose]();
  }

  /** grpc-js takes what a listener is told only after the listener was added. */
  private readonly provider: CertificateProvider = {
    addCaCertificateListener: (listener) => {
      this.authoritiesListeners.add(listener);
      process.nextTick(() => listener({ caCertificate: this.material.authorities }));
    },
    removeCaCertificateListener: (listener) => this.authoritiesListeners.delete(listener),
    addIdentityCertificateListener: (listener) => {
      this.identityListeners.add(listener);
      process.nextTick(() => listener(this.material.identity ?? null));
    },
    removeIdentityCertificateListener: (listener) => this.identityListeners.delete(listener),
  };

  private requireIdentity(): TlsIdentity {
    if (this.material.identity !== undefined) return this.material.identity;
    const description = 'is missing; a server needs a certificate and its key';
    throw new SecateurError('INVALID_REQUEST', `TLS cannot be set up: --tls-cert ${description}.`, {
      violations: [{ field: '--tls-cert', description }],
    });
  }

  private async reload(): Promise<void> {
    clearTimeout(this.retry);
    try {
      this.material = await readTlsFiles(this.files);
    } catch (error) {
      this.logger?.warn({ err: error }, 'changed TLS files are not used');
      this.retry = setTimeout(() => void this.reload(), this.retryMs).unref();
      return;
    }
    const { authorities, identity } = this.material;
    for (const listener of this.authoritiesListeners) listener({ caCertificate: authorities });
    for (const listener of this.identityListeners) listener(identity ?? null);
    this.logger?.info({ files: this.files }, 'TLS files were read again');
  }
}
