import { ServerInterceptingCall, type ServerInterceptingCallInterface, type ServerMethodDefinition } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import { isInfrastructure } from './method-codec.js';
import { toStatusObject } from './status.js';

/** Stands before every call: refuses those without a deadline, and keeps health and reflection streams so that they can be ended. */
export class CallGuard {
  private readonly infrastructure = new Set<ServerInterceptingCallInterface>();

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
            if (exempt || call.getDeadline() !== Infinity) proceed(metadata);
            else call.sendStatus(toStatusObject(missingDeadline(method.path)));
          },
          onCancel: () => this.infrastructure.delete(call),
        });
      },
    });
  };

  /** Ends the calls of health watchers and reflection clients, which would last as long as their clients. */
  endInfrastructureCalls(error: SecateurError): void {
    for (const call of this.infrastructure) call.sendStatus(toStatusObject(error));
  }
}

function missingDeadline(path: string): SecateurError {
  return new SecateurError('INVALID_REQUEST', `${path.slice(1)} was called without a deadline; every call needs one.`);
}
