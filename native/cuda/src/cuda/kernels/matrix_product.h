// What a matrix product computes, whoever does it: kernels of ours (matrix_product_f32, matrix_product_bf16) or cuBLASLt (matrix_library).
#pragma once

#include <cstddef>

namespace secateur::gpu {

// result[rows, columns] = left[rows, inner] · right[columns, inner]ᵀ, + bias[columns] where there is one, + what result held where
// accumulating. All in device memory, row-major; rows are `..._stride` elements apart. The result overlaps nothing.
template <class Element>
struct MatrixProduct {
  const Element* left;
  const Element* right;
  // May be null.
  const float* bias;
  float* result;
  std::size_t rows;
  std::size_t columns;
  std::size_t inner;
  std::size_t left_stride;
  std::size_t right_stride;
  std::size_t result_stride;
  bool accumulate;
};

}  // namespace secateur::gpu
