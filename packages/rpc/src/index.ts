export type { AccessControl, CallEvidence, CallerCertificate, EndedCall } from './access.js';
export { connect, type Channel, type ConnectOptions } from './channel.js';
export type { ChannelKind } from './channel-options.js';
export {
  ANYBODY,
  type CallContext,
  type Caller,
  type CallOptions,
  type DeepPartial,
  type ServiceClient,
  type ServiceDefinition,
  type ServiceImplementation,
  type StreamOptions,
} from './definition.js';
export { explain, explainFailure } from './explain-failure.js';
export { fetchResource, fetchResourceInto, type FetchOptions, type ResourceDescriptor } from './fetch-resource.js';
export { checkHealth, watchHealth } from './health.js';
export { parseHostPort, type HostPort } from './host-port.js';
export { checkListenAddress, isLoopback, type ListenSafety } from './listen-address.js';
export type { RpcLogger } from './logger.js';
export { createMethodCodec, type MethodCodec } from './method-codec.js';
export { Resources } from './resources.js';
export { RpcServer, type RpcServerOptions } from './rpc-server.js';
export { SERVED_FETCH_BYTES, serveFetch, type ByteSource } from './serve-fetch.js';
export { fromStatusProto, toStatusProto } from './status.js';
export { TlsCredentials, type TlsLogger } from './tls/tls-credentials.js';
export type { TlsFiles } from './tls/tls-files.js';
export { watchFiles } from './tls/watch-files.js';
