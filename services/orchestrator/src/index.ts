export { runOrchestrator, type OrchestratorOptions } from './run-orchestrator.js';
export type { ControlledNamespaces } from './k8s/controller/prune-job-controller.js';
export { defaultState } from './store/open-job-store.js';
export type { NodeSource } from './scheduler/node-discovery.js';
