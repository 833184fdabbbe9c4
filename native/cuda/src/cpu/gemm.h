// Matrix products on one thread, by OpenBLAS. Parallelism is ours, so that results never depend on the number of threads.
#pragma once

#include <cstddef>
#include <string>

namespace secateur::cpu {

// Makes the library use one thread per call. Called once before any product.
void configure_gemm();
std::string describe_gemm();

// result[m, n] = scale · left[m, k] · right[n, k]ᵀ; rows are `..._stride` elements apart.
void multiply_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                         const float* right, std::size_t right_stride, float* result, std::size_t result_stride);

// result[m, n] = left[m, k] · right[k, n].
void multiply(std::size_t m, std::size_t n, std::size_t k, const float* left, std::size_t left_stride, const float* right,
              std::size_t right_stride, float* result, std::size_t result_stride);

}  // namespace secateur::cpu
