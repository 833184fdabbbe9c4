#include "cuda/kernels/elementwise.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
// Enough blocks for any device; each goes on where the grid ends.
constexpr std::size_t kMaximumBlocks = 4096;

__device__ std::size_t first_index() { return std::size_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ std::size_t grid_stride() { return std::size_t{gridDim.x} * kThreads; }

__global__ void add_kernel(float* x, const float* y, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) x[i] += y[i];
}

__global__ void relu_kernel(float* x, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) x[i] = x[i] < 0.0F ? 0.0F : x[i];
}

__global__ void silu_multiply_kernel(float* gate, const float* up, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) gate[i] = gate[i] / (1.0F + expf(-gate[i])) * up[i];
}

template <class Stored>
__global__ void widen_kernel(const Stored* source, float* result, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) result[i] = widen(source[i]);
}

__global__ void narrow_kernel(const float* source, bfloat16* result, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) result[i] = narrow(source[i]);
}

__global__ void flag_non_finite_kernel(const float* x, std::size_t size, unsigned* flag) {
  constexpr unsigned kExponent = 0x7f800000U;
  bool found = false;
  for (std::size_t i = first_index(); i < size; i += grid_stride()) found |= (__float_as_uint(x[i]) & kExponent) == kExponent;
  if (__any_sync(kAllLanes, found) && threadIdx.x % kWarpLanes == 0) atomicOr(flag, 1U);
}

__global__ void gather_last_kernel(const float* x, std::size_t samples, std::size_t length, std::size_t size, float* result) {
  for (std::size_t i = first_index(); i < samples * size; i += grid_stride()) {
    const std::size_t sample = i / size;
    result[i] = x[((sample + 1) * length - 1) * size + i % size];
  }
}

template <class... Parameters, class... Arguments>
cudaError_t launch_over(void (*kernel)(Parameters...), std::size_t size, cudaStream_t stream, Arguments... arguments) {
  if (size == 0) return cudaSuccess;
  const std::size_t blocks = (size + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(blocks < kMaximumBlocks ? blocks : kMaximumBlocks);
  return launch(kernel, dim3(grid), dim3(kThreads), 0, stream, arguments...);
}

}  // namespace

cudaError_t add(float* x, const float* y, std::size_t size, cudaStream_t stream) {
  return launch_over(add_kernel, size, stream, x, y, size);
}

cudaError_t relu(float* x, std::size_t size, cudaStream_t stream) { return launch_over(relu_kernel, size, stream, x, size); }

cudaError_t silu_multiply(float* gate, const float* up, std::size_t size, cudaStream_t stream) {
  return launch_over(silu_multiply_kernel, size, stream, gate, up, size);
}

cudaError_t widen(const bfloat16* source, float* result, std::size_t size, cudaStream_t stream) {
  return launch_over(widen_kernel<bfloat16>, size, stream, source, result, size);
}

cudaError_t widen(const float16* source, float* result, std::size_t size, cudaStream_t stream) {
  return launch_over(widen_kernel<float16>, size, stream, source, result, size);
}

cudaError_t narrow(const float* source, bfloat16* result, std::size_t size, cudaStream_t stream) {
  return launch_over(narrow_kernel, size, stream, source, result, size);
}

cudaError_t flag_non_finite(const float* x, std::size_t size, unsigned* flag, cudaStream_t stream) {
  return launch_over(flag_non_finite_kernel, size, stream, x, size, flag);
}

cudaError_t gather_last(const float* x, std::size_t samples, std::size_t length, std::size_t size, float* result, cudaStream_t stream) {
  return launch_over(gather_last_kernel, samples * size, stream, x, samples, length, size, result);
}

}  // namespace secateur::gpu
