export { runKernelNode, type KernelNodeOptions } from './run-kernel-node.js';
