import type { Caller } from './definition.js';

/** The verified certificate of a caller. */
export interface CallerCertificate {
  readonly commonName: string;
  /** Such as `URI:spiffe://example.org/secateur/kernel-node, DNS:node-0.nodes`, as node:crypto writes it. */
  readonly alternativeNames: string;
}

/** What a call brings to tell who makes it. */
export interface CallEvidence {
  /** Full name, such as `secateur.v1.KernelService/Embed`. */
  readonly method: string;
  /** Address of the caller. */
  readonly peer: string;
  /** Absent when the caller showed none, or none that the authorities vouch for. */
  readonly certificate: CallerCertificate | undefined;
  /** The `authorization` header. */
  readonly authorization: string | undefined;
}

/** Decides who may call what, before anything of a request is read. */
export interface AccessControl {
  /** Who calls; throws UNAUTHENTICATED, PERMISSION_DENIED or RESOURCE_EXHAUSTED. */
  admit(call: CallEvidence): Promise<Caller>;
}

/** A call that is over. */
export interface EndedCall {
  readonly method: string;
  readonly peer: string;
  readonly caller: Caller;
  readonly request: unknown;
  /** The answer of a call that does not stream and did not fail. */
  readonly response: unknown;
  /** OK, or the reason of the error. */
  readonly outcome: string;
}
