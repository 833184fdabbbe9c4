export { PruningClient, type DeleteJobOptions, type NewJob, type RequestOptions, type WatchJobOptions } from './pruning-client.js';
