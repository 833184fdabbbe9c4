#include <cblas.h>

#include "cpu/gemm.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

blasint to_blas(std::size_t size) { return static_cast<blasint>(size); }

[[noreturn]] void refuse_bf16() { throw Error(ErrorCode::kFailedPrecondition, "bf16 products: " + why_no_bf16() + "."); }

}  // namespace

void configure_gemm(InstructionSet) { openblas_set_num_threads(1); }

std::string describe_gemm() { return std::string(openblas_get_config()) + " on " + openblas_get_corename(); }

std::string why_no_bf16() { return "this build multiplies with OpenBLAS, which has no bfloat16 products"; }

bool multiplies_bf16_in_tiles() { return false; }

void multiply_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                         const float* right, std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_blas(m), to_blas(n), to_blas(k), scale, left, to_blas(left_stride), right,
              to_blas(right_stride), accumulate ? 1.0F : 0.0F, result, to_blas(result_stride));
}

void multiply_left_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                              const float* right, std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_blas(m), to_blas(n), to_blas(k), scale, left, to_blas(left_stride), right,
              to_blas(right_stride), accumulate ? 1.0F : 0.0F, result, to_blas(result_stride));
}

void multiply(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride, const float* right,
              std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(m), to_blas(n), to_blas(k), scale, left, to_blas(left_stride), right,
              to_blas(right_stride), accumulate ? 1.0F : 0.0F, result, to_blas(result_stride));
}

struct PackedMatrix::State {};

PackedMatrix::PackedMatrix(MemoryBudget&, std::size_t, std::size_t, std::size_t, const std::string&) { refuse_bf16(); }
std::uint64_t PackedMatrix::bytes(std::size_t, std::size_t, std::size_t) { refuse_bf16(); }
PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&& other) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&& other) noexcept = default;
std::size_t PackedMatrix::parts() const noexcept { return 0; }
void PackedMatrix::pack(std::size_t, const float*) { refuse_bf16(); }
void PackedMatrix::multiply(std::size_t, std::size_t, const std::uint16_t*, float*) const { refuse_bf16(); }

}  // namespace secateur::cpu
