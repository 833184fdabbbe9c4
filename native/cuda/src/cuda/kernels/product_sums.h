// Sums of products of token vectors, added up over calls in the form that all devices share.
#pragma once

#include <cstddef>

#include "common/product_layout.h"
#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory.
struct ProductSumsTask {
  std::size_t tokens;
  ProductShape shape;
  // [tokens, rows]; of a symmetric shape the same as on the right.
  const float* left;
  // [tokens, columns]
  const float* right;
  // product_values(shape), in and out.
  double* sums;
};

// sums += leftᵀ · right, the tokens of one sample. Products and sums of a few tokens in float32, sums of those in float64, in an order that
// depends on the number of tokens alone; then as add_to_sum does, so that the order of samples does not matter.
cudaError_t add_product_sums(const ProductSumsTask& task, cudaStream_t stream);

}  // namespace secateur::gpu
