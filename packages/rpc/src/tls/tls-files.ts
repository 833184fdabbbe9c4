import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { rootCertificates } from 'node:tls';
import { SecateurError } from '@secateur/core';

/** Stands for the certificate authorities that Node comes with. */
export const SYSTEM_AUTHORITIES = 'system';

/** Paths of PEM files. A certificate comes with its key. */
export interface TlsFiles {
  /** Certificate of this process, followed by those between it and the authority. */
  readonly certificate?: string;
  readonly privateKey?: string;
  /** Authorities that peers are verified by; `system`, or absent, for those that Node comes with. */
  readonly authorities?: string;
}

/** What a process proves who it is with. */
export interface TlsIdentity {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
}

/** The contents of the files, found to fit together. */
export interface TlsMaterial {
  readonly identity: TlsIdentity | undefined;
  readonly authorities: Buffer;
}

const FLAGS = { certificate: '--tls-cert', privateKey: '--tls-key', authorities: '--tls-ca' } as const;
const CERTIFICATE_PATTERN = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Reads and checks the files; INVALID_REQUEST names the flag, the file and what is wrong with it. */
export async function readTlsFiles(files: TlsFiles): Promise<TlsMaterial> {
  const { certificate, privateKey, authorities = SYSTEM_AUTHORITIES } = files;
  return {
    identity: certificate === undefined && privateKey === undefined ? undefined : await readIdentity(certificate, privateKey),
    authorities: authorities === SYSTEM_AUTHORITIES ? Buffer.from(rootCertificates.join('\n')) : await readAuthorities(authorities),
  };
}

async function readIdentity(certificatePath: string | undefined, keyPath: string | undefined): Promise<TlsIdentity> {
  if (certificatePath === undefined) throw wrong('certificate', 'is missing; --tls-key is given, and a key needs its certificate');
  if (keyPath === undefined) throw wrong('privateKey', 'is missing; --tls-cert is given, and a certificate needs its key');
  const [certificate, privateKey] = await Promise.all([read('certificate', certificatePath), read('privateKey', keyPath)]);
  const [leaf] = parseCertificates('certificate', certificatePath, certificate);
  const key = parseKey(keyPath, privateKey);
  if (!leaf!.checkPrivateKey(key)) {
    throw wrong('privateKey', `${keyPath} is not the key of the first certificate in ${certificatePath}`);
  }
  checkValidity('certificate', certificatePath, [leaf!]);
  return { certificate, privateKey };
}

async function readAuthorities(path: string): Promise<Buffer> {
  const content = await read('authorities', path);
  checkValidity('authorities', path, parseCertificates('authorities', path, content));
  return content;
}

async function read(file: keyof TlsFiles, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw wrong(file, `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

function parseCertificates(file: keyof TlsFiles, path: string, content: Buffer): X509Certificate[] {
  const blocks = content.toString('latin1').match(CERTIFICATE_PATTERN) ?? [];
  if (blocks.length === 0) throw wrong(file, `${path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)`);
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw wrong(file, `${path} holds a certificate that cannot be parsed`, cause);
    }
  });
}

function parseKey(path: string, content: Buffer): KeyObject {
  try {
    return createPrivateKey(content);
  } catch (cause) {
    // The text of the error may be shown; it never holds the key.
    throw wrong('privateKey', `${path} holds no private key in PEM without a passphrase`, cause);
  }
}

/** Throws unless one of the certificates is valid now. */
function checkValidity(file: keyof TlsFiles, path: string, certificates: readonly X509Certificate[]): void {
  const now = Date.now();
  const [first] = certificates;
  if (certificates.some(({ validFrom, validTo }) => Date.parse(validFrom) <= now && now <= Date.parse(validTo))) return;
  const problem = Date.parse(first!.validTo) < now ? `expired on ${first!.validTo}` : `is valid only from ${first!.validFrom}`;
  throw wrong(file, `the certificate in ${path} ${problem}`);
}

function wrong(file: keyof TlsFiles, description: string, cause?: unknown): SecateurError {
  const field = FLAGS[file];
  return new SecateurError('INVALID_REQUEST', `TLS cannot be set up: ${field} ${description}.`, {
    cause,
    violations: [{ field, description }],
  });
}
