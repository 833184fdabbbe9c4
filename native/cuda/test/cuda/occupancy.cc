// How many warps of a kernel fit a multiprocessor at once, by the toolkit's own occupancy calculator; needs no GPU.
// usage: occupancy < lines of `capability registers static_shared_bytes dynamic_shared_bytes threads`; prints a number per line.
#include <cuda_occupancy.h>

#include <cstdio>

namespace {

struct Architecture {
  int capability;
  int threads;
  std::size_t shared_bytes;
};

// Limits of a multiprocessor: CUDA Programming Guide, "Compute Capabilities".
constexpr Architecture kArchitectures[] = {
    {80, 2048, 164 * 1024}, {86, 1536, 100 * 1024}, {89, 1536, 100 * 1024}, {90, 2048, 228 * 1024}, {100, 2048, 228 * 1024}};
constexpr int kWarpLanes = 32;
constexpr std::size_t kReservedSharedBytes = 1024;

int resident_warps(const Architecture& architecture, int registers, std::size_t static_shared, std::size_t dynamic_shared, int threads) {
  cudaOccDeviceProp properties;
  properties.computeMajor = architecture.capability / 10;
  properties.computeMinor = architecture.capability % 10;
  properties.maxThreadsPerBlock = 1024;
  properties.maxThreadsPerMultiprocessor = architecture.threads;
  properties.regsPerBlock = 65536;
  properties.regsPerMultiprocessor = 65536;
  properties.warpSize = kWarpLanes;
  properties.sharedMemPerBlock = 48 * 1024;
  properties.sharedMemPerMultiprocessor = architecture.shared_bytes;
  properties.numSms = 1;
  properties.sharedMemPerBlockOptin = architecture.shared_bytes - kReservedSharedBytes;
  properties.reservedSharedMemPerBlock = kReservedSharedBytes;

  cudaOccFuncAttributes attributes;
  attributes.maxThreadsPerBlock = threads;
  attributes.numRegs = registers;
  attributes.sharedSizeBytes = static_shared;
  attributes.partitionedGCConfig = PARTITIONED_GC_OFF;
  attributes.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  attributes.maxDynamicSharedSizeBytes = dynamic_shared;
  attributes.numBlockBarriers = 1;

  const cudaOccDeviceState state;
  cudaOccResult result;
  if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &properties, &attributes, &state, threads, dynamic_shared) != CUDA_OCC_SUCCESS) {
    return 0;
  }
  return result.activeBlocksPerMultiprocessor * ((threads + kWarpLanes - 1) / kWarpLanes);
}

}  // namespace

int main() {
  int capability = 0;
  int registers = 0;
  std::size_t static_shared = 0;
  std::size_t dynamic_shared = 0;
  int threads = 0;
  while (std::scanf("%d %d %zu %zu %d", &capability, &registers, &static_shared, &dynamic_shared, &threads) == 5) {
    int warps = 0;
    for (const Architecture& architecture : kArchitectures) {
      if (architecture.capability == capability) warps = resident_warps(architecture, registers, static_shared, dynamic_shared, threads);
    }
    std::printf("%d\n", warps);
  }
  return 0;
}
