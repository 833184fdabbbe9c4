// Masks chosen while the kept weights are fitted, by the alternating direction method of multipliers (Boža, arXiv 2401.02938).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

struct AdmmTask {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]: what the kept weights are to come close to.
  std::span<const float> weights;
  // [columns, columns]
  std::span<const float> gram;
  // [rows]
  std::span<const std::int32_t> dropped_per_row;
  // The lowest of the whole matrix are dropped whatever their row.
  bool across_rows;
  // [rows, columns], out: kept weights, dropped ones 0.
  float* fitted;
  // [rows, ceil(columns / 8)], out.
  std::uint8_t* mask;
};

std::uint64_t admm_bytes(std::size_t rows, std::size_t columns, std::size_t threads);

// Throws NonFinite when the Gram matrix cannot be inverted.
void choose_by_admm(const AdmmTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
