#include <cstdio>

#include "cuda/kernels/column_sums.h"
#include "library.h"
#include "cuda/kernels/quality_curves.h"

namespace gpu = secateur::gpu;

static_assert(sizeof(secateur_cuda_curve_point) == sizeof(gpu::CurvePoint));

int32_t secateur_cuda_abi_version(void) { return SECATEUR_CUDA_ABI_VERSION; }

int32_t secateur_cuda_query_devices(char* reason, size_t reason_capacity) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorInsufficientDriver) {
    std::snprintf(reason, reason_capacity, "No NVIDIA driver, or one older than this library's CUDA %d.%d needs.", CUDART_VERSION / 1000,
                  CUDART_VERSION % 1000 / 10);
    return 0;
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && devices == 0)) {
    std::snprintf(reason, reason_capacity, "The NVIDIA driver sees no device.");
    return 0;
  }
  if (error != cudaSuccess) {
    std::snprintf(reason, reason_capacity, "The CUDA runtime failed: %s.", cudaGetErrorString(error));
    return 0;
  }
  cudaDeviceProp properties;
  const cudaError_t described = cudaGetDeviceProperties(&properties, 0);
  if (described != cudaSuccess) {
    std::snprintf(reason, reason_capacity, "The first device cannot be used: %s.", cudaGetErrorString(described));
    return 0;
  }
  std::snprintf(reason, reason_capacity, "%d device(s), the first: %s, compute capability %d.%d.", devices, properties.name,
                properties.major, properties.minor);
  return devices;
}

const char* secateur_cuda_error_text(int32_t error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int32_t secateur_cuda_column_sums_of_squares(const float* inputs, uint64_t tokens, uint64_t columns, double* sums, void* stream) {
  return gpu::column_sums_of_squares(inputs, tokens, columns, sums, static_cast<cudaStream_t>(stream));
}

int32_t secateur_cuda_quality_curves(const secateur_cuda_quality_curves_task* task, void* stream) {
  return gpu::quality_curves({.rows = task->rows,
                              .columns = task->columns,
                              .samples = task->samples,
                              .weights = task->weights,
                              .orders = task->orders,
                              .inputs = task->inputs,
                              .outputs = task->outputs,
                              .points = reinterpret_cast<gpu::CurvePoint*>(task->points),
                              .dense_squared_norms = task->dense_squared_norms},
                             static_cast<cudaStream_t>(stream));
}
