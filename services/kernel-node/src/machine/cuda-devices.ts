/** For whoever starts nodes on this machine, without all that a node is made of. */
export { countCudaDevices } from '@secateur/native';
