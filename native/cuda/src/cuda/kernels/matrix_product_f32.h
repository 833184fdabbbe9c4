// Products of float32 matrices with float32 arithmetic (no TF32): the path that is always there.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace secateur::gpu {

// result[m, n] = left[m, k] · right[n, k]ᵀ + bias[n]; all row-major and dense. Every element is a sum over k in ascending order.
struct MatrixProductF32 {
  std::size_t m;
  std::size_t n;
  std::size_t k;
  const float* left;
  const float* right;
  // Null for none.
  const float* bias;
  float* result;
};

cudaError_t matrix_product_f32(const MatrixProductF32& task, cudaStream_t stream);

}  // namespace secateur::gpu
