import { loadAddon } from './load.js';

/** Devices that an engine with the CUDA backend would find; 0 where it cannot be used. */
export function countCudaDevices(): number {
  return loadAddon().countCudaDevices();
}
