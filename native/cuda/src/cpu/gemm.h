// Dense matrix products by a library that the build chooses (SECATEUR_GEMM): gemm_onednn.cc or gemm_openblas.cc. Every product runs on the
// thread that asks for it; parallelism is ours, so that results never depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cpu/instruction_set.h"
#include "secateur/memory_budget.h"

namespace secateur::cpu {

// Holds the library to the instructions the engine uses. Called once before any product.
void configure_gemm(InstructionSet instruction_set);
// The library's name and version.
std::string describe_gemm();
// Empty when products of bfloat16 values are faster here than those of float32, else why they are not offered.
std::string why_no_bf16();
// Whether they run on tiles (AMX), which multiply faster than anything else here does.
bool multiplies_bf16_in_tiles();

// result[m, n] = scale · left[m, k] · right[n, k]ᵀ (+ result when `accumulate`); rows are `..._stride` elements apart.
void multiply_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                         const float* right, std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate = false);

// result[m, n] = scale · left[k, m]ᵀ · right[k, n] (+ result when `accumulate`).
void multiply_left_transposed(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride,
                              const float* right, std::size_t right_stride, float* result, std::size_t result_stride,
                              bool accumulate = false);

// result[m, n] = scale · left[m, k] · right[k, n] (+ result when `accumulate`).
void multiply(std::size_t m, std::size_t n, std::size_t k, float scale, const float* left, std::size_t left_stride, const float* right,
              std::size_t right_stride, float* result, std::size_t result_stride, bool accumulate = false);

// A matrix [rows, columns] as bfloat16 in the library's own layout, to be multiplied many times. Threads may multiply side by side.
class PackedMatrix {
 public:
  // Cut into parts of `part_rows` rows (the last has the rest), which are packed and multiplied one by one. Throws OutOfMemory naming
  // `purpose`. The values are not packed yet.
  PackedMatrix(MemoryBudget& budget, std::size_t rows, std::size_t columns, std::size_t part_rows, const std::string& purpose);
  // Memory of one.
  static std::uint64_t bytes(std::size_t rows, std::size_t columns, std::size_t part_rows);
  ~PackedMatrix();
  PackedMatrix(PackedMatrix&& other) noexcept;
  PackedMatrix& operator=(PackedMatrix&& other) noexcept;

  std::size_t parts() const noexcept;
  // Narrows and packs a part of the row-major float32 matrix [rows, columns]. Parts may be packed side by side.
  void pack(std::size_t part, const float* values);
  // result[tokens, rows of the part] = x[tokens, columns] · partᵀ; x is bfloat16, both are dense; sums are float32.
  void multiply(std::size_t part, std::size_t tokens, const std::uint16_t* x, float* result) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace secateur::cpu
