/** A certificate authority of its own for each test; keys are made new, nothing outlives the test. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;

x509.cryptoProvider.set(webcrypto);

export interface CertificateOptions {
  /** URIs such as spiffe://secateur.test/secateur/orchestrator. */
  readonly uris?: readonly string[];
  readonly names?: readonly string[];
  readonly addresses?: readonly string[];
  readonly commonName?: string;
  /** From now, in days; both below 0 for one that has expired. */
  readonly fromDays?: number;
  readonly toDays?: number;
}

/** Paths of PEM files. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly privateKey: string;
}

export class CertificateAuthority {
  private serial = 1;

  private constructor(
    private readonly folder: string,
    private readonly keys: webcrypto.CryptoKeyPair,
    private readonly certificate: x509.X509Certificate,
    /** Path of the authority's certificate. */
    readonly path: string,
  ) {}

  static async create(folder: string, name: string): Promise<CertificateAuthority> {
    const keys = await makeKeys();
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: `CN=${name}`,
      keys,
      signingAlgorithm: ALGORITHM,
      notBefore: new Date(Date.now() - DAY_MS),
      notAfter: new Date(Date.now() + DAY_MS),
      extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
    });
    const path = join(folder, `${name}.pem`);
    await writeFile(path, certificate.toString('pem'));
    return new CertificateAuthority(folder, keys, certificate, path);
  }

  /** Makes a key and a certificate for it, valid at 127.0.0.1 unless told otherwise; a file that is there already is written anew. */
  async issue(
    name: string,
    { uris = [], names = [], addresses = ['127.0.0.1'], commonName = name, fromDays = -1, toDays = 1 }: CertificateOptions = {},
  ): Promise<CertificateFiles> {
    const keys = await makeKeys();
    this.serial += 1;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: this.serial.toString(16).padStart(2, '0'),
      subject: `CN=${commonName}`,
      issuer: this.certificate.subject,
      publicKey: keys.publicKey,
      signingKey: this.keys.privateKey,
      signingAlgorithm: ALGORITHM,
      notBefore: new Date(Date.now() + fromDays * DAY_MS),
      notAfter: new Date(Date.now() + toDays * DAY_MS),
      extensions: [
        new x509.SubjectAlternativeNameExtension([
          ...uris.map((value) => ({ type: 'url' as const, value })),
          ...names.map((value) => ({ type: 'dns' as const, value })),
          ...addresses.map((value) => ({ type: 'ip' as const, value })),
        ]),
      ],
    });
    const files = { certificate: join(this.folder, `${name}.crt`), privateKey: join(this.folder, `${name}.key`) };
    const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
    await writeFile(files.certificate, certificate.toString('pem'));
    await writeFile(files.privateKey, x509.PemConverter.encode(key, 'PRIVATE KEY'));
    return files;
  }
}

function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}
