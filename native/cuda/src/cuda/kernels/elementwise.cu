#include "cuda/kernels/elementwise.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
// Enough blocks for any device; each goes on where the grid ends.
constexpr std::size_t kMaximumBlocks = 4096;

__device__ std::size_t first_index() { return std::size_t{blockIdx.x} * kThreads + threadIdx.x; }
__device__ std::size_t grid_stride() { return std::size_t{gridDim.x} * kThreads; }

// Values that are loaded and stored together where the addresses allow it.
constexpr std::size_t kQuad = 4;

bool holds_quads(const void* data, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(data) % bytes == 0; }

// Whole quads from the begin on that float arrays x and y can be worked through in.
std::size_t count_quads(const float* x, const float* y, std::size_t size) {
  return holds_quads(x, sizeof(float4)) && holds_quads(y, sizeof(float4)) ? size / kQuad : 0;
}

struct Add {
  __device__ float operator()(float x, float y) const { return x + y; }
};

struct Subtract {
  __device__ float operator()(float x, float y) const { return x - y; }
};

struct SiluMultiply {
  __device__ float operator()(float gate, float up) const { return gate / (1.0F + expf(-gate)) * up; }
};

__device__ float positive_part(float x) { return x < 0.0F ? 0.0F : x; }

// x[i] = operation(x[i], y[i]).
template <class Operation>
__global__ void __launch_bounds__(kThreads) combine_kernel(float* x, const float* y, std::size_t quads, std::size_t size) {
  const Operation operation;
  auto* const x_quads = reinterpret_cast<float4*>(x);
  const auto* const y_quads = reinterpret_cast<const float4*>(y);
  for (std::size_t i = first_index(); i < quads; i += grid_stride()) {
    const float4 a = x_quads[i];
    const float4 b = y_quads[i];
    x_quads[i] = make_float4(operation(a.x, b.x), operation(a.y, b.y), operation(a.z, b.z), operation(a.w, b.w));
  }
  for (std::size_t i = quads * kQuad + first_index(); i < size; i += grid_stride()) x[i] = operation(x[i], y[i]);
}

__global__ void __launch_bounds__(kThreads) relu_kernel(float* x, std::size_t quads, std::size_t size) {
  auto* const x_quads = reinterpret_cast<float4*>(x);
  for (std::size_t i = first_index(); i < quads; i += grid_stride()) {
    const float4 a = x_quads[i];
    x_quads[i] = make_float4(positive_part(a.x), positive_part(a.y), positive_part(a.z), positive_part(a.w));
  }
  for (std::size_t i = quads * kQuad + first_index(); i < size; i += grid_stride()) x[i] = positive_part(x[i]);
}

template <class Stored>
__global__ void __launch_bounds__(kThreads) widen_kernel(const Stored* source, float* result, std::size_t size) {
  for (std::size_t i = first_index(); i < size; i += grid_stride()) result[i] = widen(source[i]);
}

template <class Stored>
struct alignas(8) NarrowQuad {
  Stored values[kQuad];
};

template <class Stored>
__global__ void __launch_bounds__(kThreads) narrow_kernel(const float* source, Stored* result, std::size_t quads, std::size_t size) {
  const auto* const source_quads = reinterpret_cast<const float4*>(source);
  auto* const result_quads = reinterpret_cast<NarrowQuad<Stored>*>(result);
  for (std::size_t i = first_index(); i < quads; i += grid_stride()) {
    const float4 a = source_quads[i];
    result_quads[i] = {{narrow<Stored>(a.x), narrow<Stored>(a.y), narrow<Stored>(a.z), narrow<Stored>(a.w)}};
  }
  for (std::size_t i = quads * kQuad + first_index(); i < size; i += grid_stride()) result[i] = narrow<Stored>(source[i]);
}

__device__ bool is_non_finite(float x) {
  constexpr unsigned kExponent = 0x7f800000U;
  return (__float_as_uint(x) & kExponent) == kExponent;
}

__global__ void __launch_bounds__(kThreads) flag_non_finite_kernel(const float* x, std::size_t quads, std::size_t size, unsigned* flag) {
  const auto* const x_quads = reinterpret_cast<const float4*>(x);
  bool found = false;
  for (std::size_t i = first_index(); i < quads; i += grid_stride()) {
    const float4 a = x_quads[i];
    found |= is_non_finite(a.x) | is_non_finite(a.y) | is_non_finite(a.z) | is_non_finite(a.w);
  }
  for (std::size_t i = quads * kQuad + first_index(); i < size; i += grid_stride()) found |= is_non_finite(x[i]);
  if (__any_sync(kAllLanes, found) && threadIdx.x % kWarpLanes == 0) atomicOr(flag, 1U);
}

__global__ void __launch_bounds__(kThreads)
    gather_last_kernel(const float* x, std::size_t samples, std::size_t length, std::size_t size, float* result) {
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

template <class Stored>
cudaError_t narrow_all(const float* source, Stored* result, std::size_t size, cudaStream_t stream) {
  const std::size_t quads = holds_quads(result, sizeof(NarrowQuad<Stored>)) ? count_quads(source, source, size) : 0;
  return launch_over(narrow_kernel<Stored>, size, stream, source, result, quads, size);
}

}  // namespace

cudaError_t add(float* x, const float* y, std::size_t size, cudaStream_t stream) {
  return launch_over(combine_kernel<Add>, size, stream, x, y, count_quads(x, y, size), size);
}

cudaError_t subtract(float* x, const float* y, std::size_t size, cudaStream_t stream) {
  return launch_over(combine_kernel<Subtract>, size, stream, x, y, count_quads(x, y, size), size);
}

cudaError_t relu(float* x, std::size_t size, cudaStream_t stream) {
  return launch_over(relu_kernel, size, stream, x, count_quads(x, x, size), size);
}

cudaError_t silu_multiply(float* gate, const float* up, std::size_t size, cudaStream_t stream) {
  return launch_over(combine_kernel<SiluMultiply>, size, stream, gate, up, count_quads(gate, up, size), size);
}

cudaError_t widen(const bfloat16* source, float* result, std::size_t size, cudaStream_t stream) {
  return launch_over(widen_kernel<bfloat16>, size, stream, source, result, size);
}

cudaError_t widen(const float16* source, float* result, std::size_t size, cudaStream_t stream) {
  return launch_over(widen_kernel<float16>, size, stream, source, result, size);
}

cudaError_t narrow(const float* source, bfloat16* result, std::size_t size, cudaStream_t stream) {
  return narrow_all(source, result, size, stream);
}

cudaError_t narrow(const float* source, float16* result, std::size_t size, cudaStream_t stream) {
  return narrow_all(source, result, size, stream);
}

cudaError_t flag_non_finite(const float* x, std::size_t size, unsigned* flag, cudaStream_t stream) {
  return launch_over(flag_non_finite_kernel, size, stream, x, count_quads(x, x, size), size, flag);
}

cudaError_t gather_last(const float* x, std::size_t samples, std::size_t length, std::size_t size, float* result, cudaStream_t stream) {
  return launch_over(gather_last_kernel, samples * size, stream, x, samples, length, size, result);
}

}  // namespace secateur::gpu
