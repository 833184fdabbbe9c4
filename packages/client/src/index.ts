export { PruningClient, type NewJob, type RequestOptions, type WatchJobOptions } from './pruning-client.js';
