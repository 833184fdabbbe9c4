// Operations on every element by itself.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {

// x[i] += y[i].
cudaError_t add(float* x, const float* y, std::size_t size, cudaStream_t stream);
// x[i] -= y[i].
cudaError_t subtract(float* x, const float* y, std::size_t size, cudaStream_t stream);
// x[i] = max(x[i], 0).
cudaError_t relu(float* x, std::size_t size, cudaStream_t stream);
// gate[i] = gate[i] · sigmoid(gate[i]) · up[i].
cudaError_t silu_multiply(float* gate, const float* up, std::size_t size, cudaStream_t stream);
// Exact.
cudaError_t widen(const bfloat16* source, float* result, std::size_t size, cudaStream_t stream);
cudaError_t widen(const float16* source, float* result, std::size_t size, cudaStream_t stream);
// To the nearest, ties to even; what is too large becomes infinite.
cudaError_t narrow(const float* source, bfloat16* result, std::size_t size, cudaStream_t stream);
cudaError_t narrow(const float* source, float16* result, std::size_t size, cudaStream_t stream);
// *flag becomes 1 when a value is NaN or infinite; otherwise it stays.
cudaError_t flag_non_finite(const float* x, std::size_t size, unsigned* flag, cudaStream_t stream);
// Rows of `size` values whose last token is wanted: result[sample, :] = x[(sample + 1) · length - 1, :].
cudaError_t gather_last(const float* x, std::size_t samples, std::size_t length, std::size_t size, float* result, cudaStream_t stream);

}  // namespace secateur::gpu
