// Kept weights fitted to the dense output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

struct FitTask {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]: dense.
  std::span<const float> weights;
  // [columns, columns]
  std::span<const float> gram;
  // Added to the diagonal of the Gram matrix.
  double damping;
  // [rows, ceil(columns / 8)]
  std::span<const std::uint8_t> mask;
  int iterations;
  // [rows, columns]: in, where the fit starts, 0 where the mask drops; out, the fitted weights.
  float* fitted;
};

std::uint64_t fit_bytes(std::size_t columns, std::size_t threads);

// Each row's (w - ŵ)(C + λI)(w - ŵ)ᵀ is made smaller over its kept weights ŵ by conjugate gradients, preconditioned by the diagonal.
void fit_weights(const FitTask& task, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
