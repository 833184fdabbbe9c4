export {
  PruningClient,
  type DeleteJobOptions,
  type NewJob,
  type PruningClientOptions,
  type RequestOptions,
  type WatchJobOptions,
} from './pruning-client.js';
export { TlsCredentials } from '@secateur/rpc';
