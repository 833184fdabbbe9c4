// SparseGPT (arXiv 2301.00774): columns are pruned in order, and the error of each is made up for by the columns to its right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

struct SparseGptTask {
  std::size_t rows;
  std::size_t columns;
  // [columns, columns]: of its upper half and diagonal, U with UᵀU = H⁻¹.
  const float* factor;
  // [rows]
  std::span<const std::int32_t> dropped_per_row;
  // The lowest of a block of columns are dropped whatever their row.
  bool across_rows;
  // [rows, columns], in and out.
  float* weights;
  // [rows, ceil(columns / 8)], out; all 0 before.
  std::uint8_t* mask;
};

std::uint64_t sparsegpt_bytes(std::size_t rows, std::size_t threads);

// Of each block of 128 columns every row drops its share, in such a way that the shares of all blocks add up to its count.
void sparsegpt(const SparseGptTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
