// A pruned weight as its kept values, and its product with dense activations, which does only the work that pruning left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Columns are cut into slices whose activations of one panel of tokens fit the first-level cache; within a slice the kept values of a row
// follow one another. Rows are sums of their kept values by ascending column, whatever the threads.
// Value: float, or std::uint16_t for the bits of bfloat16, whose kept values are taken in pairs; one without a partner has a zero beside
// it.
template <class Value>
class SparseMatrix {
 public:
  // From a share of zeros of this on, the sparse product is faster than the library's dense one of such values (docs/performance.md). A
  // constant, not a measurement at run time, because the choice changes the last bits of results.
  static constexpr double kWorthwhileSparsity = 0.6;

  // The most memory one with so many kept values takes.
  static std::uint64_t bytes(std::size_t rows, std::size_t columns, std::uint64_t kept);

  // Of a row-major float32 matrix [rows, columns]. Throws OutOfMemory naming `purpose`.
  SparseMatrix(MemoryBudget& budget, ThreadPool& pool, CallContext& context, std::size_t rows, std::size_t columns, const float* values,
               const std::string& purpose);

  std::uint64_t kept() const noexcept { return kept_; }

  // sums[rows, kTokenPanel] = this · inputs[columns, kTokenPanel]; both are aligned to 64 bytes. Tokens of bfloat16 inputs are in the order
  // of PairMath::narrow.
  void multiply(const Value* inputs, float* sums) const;

 private:
  std::size_t rows_;
  std::size_t columns_;
  std::uint64_t kept_ = 0;
  // [slices, rows + 1]: where the values, or pairs of them, of a row begin.
  Buffer<std::uint32_t> starts_;
  // Column within the slice, and value, of every kept weight.
  Buffer<std::uint8_t> kept_columns_;
  Buffer<Value> values_;
};

extern template class SparseMatrix<float>;
extern template class SparseMatrix<std::uint16_t>;

}  // namespace secateur::cpu
