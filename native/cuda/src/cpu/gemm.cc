#include "cpu/gemm.h"

#include <cblas.h>

namespace secateur::cpu {

namespace {

blasint to_blas(std::size_t size) { return static_cast<blasint>(size); }

}  // namespace

void configure_gemm() { openblas_set_num_threads(1); }

std::string describe_gemm() { return std::string(openblas_get_config()) + " on " + openblas_get_corename(); }

void multiply_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                         const float* right, std::size_t right_stride, float* result, std::size_t result_stride) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_blas(m), to_blas(n), to_blas(k), scale, left, to_blas(left_stride), right,
              to_blas(right_stride), 0.0F, result, to_blas(result_stride));
}

void multiply(std::size_t m, std::size_t n, std::size_t k, const float* left, std::size_t left_stride, const float* right,
              std::size_t right_stride, float* result, std::size_t result_stride) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(m), to_blas(n), to_blas(k), 1.0F, left, to_blas(left_stride), right,
              to_blas(right_stride), 0.0F, result, to_blas(result_stride));
}

}  // namespace secateur::cpu
