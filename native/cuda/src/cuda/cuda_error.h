// Errors of the CUDA runtime as errors of the engine.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "secateur/error.h"

namespace secateur::gpu {

// Throws RESOURCE_EXHAUSTED when memory is missing, else INTERNAL, naming the operation and CUDA's own error.
inline void check(cudaError_t error, const char* operation) {
  if (error == cudaSuccess) return;
  const std::string text =
      std::string(operation) + " failed on the GPU: " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ").";
  if (error == cudaErrorMemoryAllocation) throw OutOfMemory(text, 0, 0);
  throw Error(ErrorCode::kInternal, text);
}

}  // namespace secateur::gpu
