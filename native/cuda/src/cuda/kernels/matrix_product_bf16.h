// Products of bfloat16 matrices on tensor cores, with float32 sums: what runs where no matrix library is installed.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace secateur::gpu {

struct bfloat16;

// result[m, n] = left[m, k] · right[n, k]ᵀ + bias[n]; all row-major and dense.
struct MatrixProductBF16 {
  std::size_t m;
  std::size_t n;
  std::size_t k;
  const bfloat16* left;
  const bfloat16* right;
  // Null for none.
  const float* bias;
  float* result;
};

cudaError_t matrix_product_bf16(const MatrixProductBF16& task, cudaStream_t stream);

}  // namespace secateur::gpu
