import type { EncodedMessage } from './encoded-message.js';

/** Types derived from the service definitions that ts-proto generates (`outputServices=generic-definitions`). */

type Builtin = Date | ((...parameters: never[]) => unknown) | Uint8Array | string | number | boolean | undefined;

/** A message of which any field may be left out, as `fromPartial` takes it. */
export type DeepPartial<T> = T extends Builtin
  ? T
  : T extends readonly (infer Item)[]
    ? DeepPartial<Item>[]
    : T extends { $case: string; value: unknown }
      ? { $case: T['$case']; value?: DeepPartial<T['value']> }
      : { [Key in keyof T]?: DeepPartial<T[Key]> };

export interface MessageType<Message = unknown> {
  encode(message: Message): { finish(): Uint8Array };
  decode(input: Uint8Array): Message;
  fromPartial(partial: unknown): Message;
}

/** One call of a service. Client streams are not supported: who receives bulk bytes is always the client (it can widen its window). */
export interface MethodDefinition {
  readonly name: string;
  readonly requestType: MessageType;
  readonly requestStream: false;
  readonly responseType: MessageType;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

type RequestOf<Method extends MethodDefinition> = ReturnType<Method['requestType']['decode']>;
type ResponseOf<Method extends MethodDefinition> = ReturnType<Method['responseType']['decode']>;

/** Who calls. */
export interface Caller {
  /** For people and the audit log. */
  readonly name: string;
  /** Whose jobs and files it may see and change. */
  readonly tenant: string;
  /** Sees and changes those of all tenants. */
  readonly administrator: boolean;
}

/** Who calls a server that asks nobody who they are. */
export const ANYBODY: Caller = { name: 'anybody', tenant: 'default', administrator: true };

/** What a handler knows about the call it serves. */
export interface CallContext {
  /** Aborts when the client cancels or is gone, when the deadline is over, and when the server shuts down. Its reason is a SecateurError. */
  readonly signal: AbortSignal;
  /** Address of the caller. */
  readonly peer: string;
  readonly caller: Caller;
  /** Full name, such as `secateur.v1.KernelService/Embed`. */
  readonly method: string;
  readonly deadline: Date;
}

/** Handlers of all methods of a service. Answers may leave out fields that have their default; those of a stream may be encoded already. */
export type ServiceImplementation<Definition extends ServiceDefinition> = {
  readonly [Name in keyof Definition['methods']]: Definition['methods'][Name]['responseStream'] extends true
    ? (
        request: RequestOf<Definition['methods'][Name]>,
        context: CallContext,
      ) => AsyncIterable<DeepPartial<ResponseOf<Definition['methods'][Name]>> | EncodedMessage>
    : (
        request: RequestOf<Definition['methods'][Name]>,
        context: CallContext,
      ) => Promise<DeepPartial<ResponseOf<Definition['methods'][Name]>>>;
};

export interface CallOptions {
  /** Aborting cancels the call, which then fails with CANCELLED. */
  readonly signal?: AbortSignal;
  /** The whole call fails with DEADLINE_EXCEEDED after this time. */
  readonly timeoutMs: number;
}

export interface StreamOptions extends CallOptions {
  /** The call fails with DEADLINE_EXCEEDED when the caller has waited this long for the next message. Defaults to no limit. */
  readonly idleTimeoutMs?: number;
}

/**
 * Calls of all methods of a service. Every failure is a SecateurError.
 * A stream begins when it is first read and is cancelled when its reader stops early.
 */
export type ServiceClient<Definition extends ServiceDefinition> = {
  readonly [Name in keyof Definition['methods']]: Definition['methods'][Name]['responseStream'] extends true
    ? (
        request: DeepPartial<RequestOf<Definition['methods'][Name]>>,
        options: StreamOptions,
      ) => AsyncGenerator<ResponseOf<Definition['methods'][Name]>, void, undefined>
    : (
        request: DeepPartial<RequestOf<Definition['methods'][Name]>>,
        options: CallOptions,
      ) => Promise<ResponseOf<Definition['methods'][Name]>>;
};
