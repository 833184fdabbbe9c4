// Products of matrices of 16-bit values on tensor cores, with float32 sums: what runs where no matrix library is installed.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace secateur::gpu {

struct bfloat16;
struct float16;

// result[m, n] = left[m, k] · right[n, k]ᵀ + bias[n]; all row-major and dense. Narrow: bfloat16 or float16.
template <class Narrow>
struct MatrixProductNarrow {
  std::size_t m;
  std::size_t n;
  std::size_t k;
  const Narrow* left;
  const Narrow* right;
  // Null for none.
  const float* bias;
  float* result;
};

cudaError_t matrix_product_narrow(const MatrixProductNarrow<bfloat16>& task, cudaStream_t stream);
cudaError_t matrix_product_narrow(const MatrixProductNarrow<float16>& task, cudaStream_t stream);

}  // namespace secateur::gpu
