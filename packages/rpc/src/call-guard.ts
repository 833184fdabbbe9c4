import { type Metadata, ServerInterceptingCall, type ServerInterceptingCallInterface, type ServerMethodDefinition } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import type { AccessControl, CallEvidence } from './access.js';
import { ANYBODY, type Caller } from './definition.js';
import { isInfrastructure } from './method-codec.js';
import { toStatusObject } from './status.js';

const AUTHORIZATION = 'authorization';

/**
 * Stands before every call, before its request is read: refuses those that access control does not admit and those without a deadline,
 * and keeps health and reflection streams so that they can be ended.
 */
export class CallGuard {
  private readonly infrastructure = new Set<ServerInterceptingCallInterface>();
  private readonly callers = new WeakMap<Metadata, Caller>();

  constructor(
    private readonly access: AccessControl | undefined,
    /** What a caller is told of an error. */
    private readonly explain: (cause: unknown, method: string) => SecateurError,
  ) {}

  readonly interceptor = (
    method: ServerMethodDefinition<unknown, unknown>,
    call: ServerInterceptingCallInterface,
  ): ServerInterceptingCall => {
    const exempt = isInfrastructure(method.path);
    return new ServerInterceptingCall(call, {
      start: (next) => {
        if (exempt) this.infrastructure.add(call);
        next({
          onReceiveMetadata: (metadata, proceed) => {
            const refuse = (error: SecateurError): void => call.sendStatus(toStatusObject(error));
            const go = (caller: Caller): void => {
              this.callers.set(metadata, caller);
              if (exempt || call.getDeadline() !== Infinity) proceed(metadata);
              else refuse(missingDeadline(method.path));
            };
            if (this.access === undefined) go(ANYBODY);
            else
              this.access
                .admit(takeEvidence(method.path, call, metadata))
                .then(go, (cause: unknown) => refuse(this.explain(cause, method.path)));
          },
          onCancel: () => this.infrastructure.delete(call),
        });
      },
    });
  };

  /** Who makes a call that has passed. */
  callerOf(metadata: Metadata): Caller {
    const caller = this.callers.get(metadata);
    if (caller === undefined) throw new Error('A call reached its handler without having been admitted.');
    return caller;
  }

  /** Ends the calls of health watchers and reflection clients, which would last as long as their clients. */
  endInfrastructureCalls(error: SecateurError): void {
    for (const call of this.infrastructure) call.sendStatus(toStatusObject(error));
  }
}

/** Takes the secrets out of the metadata, so that nothing behind the guard can pass them on. */
function takeEvidence(path: string, call: ServerInterceptingCallInterface, metadata: Metadata): CallEvidence {
  const [authorization] = metadata.get(AUTHORIZATION);
  metadata.remove(AUTHORIZATION);
  // Present only when the authorities vouch for it. Of several common names the last is the most specific one.
  const certificate = call.getAuthContext().sslPeerCertificate;
  return {
    method: path.slice(1),
    peer: call.getPeer(),
    certificate: certificate && {
      commonName: [certificate.subject.CN].flat().at(-1) ?? '',
      alternativeNames: certificate.subjectaltname ?? '',
    },
    authorization: authorization?.toString(),
  };
}

function missingDeadline(path: string): SecateurError {
  return new SecateurError('INVALID_REQUEST', `${path.slice(1)} was called without a deadline; every call needs one.`);
}
