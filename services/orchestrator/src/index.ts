export { runOrchestrator, type OrchestratorOptions } from './run-orchestrator.js';
