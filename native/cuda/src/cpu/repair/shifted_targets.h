// What the kept weights of a projection are fitted to where the pruned model is to come back to the dense one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

struct ShiftTask {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]: dense.
  std::span<const float> weights;
  // [columns, columns], as RepairInput has it: Σ (x' - x)xᵀ, then [rows, columns] Σ (r' - r)xᵀ where the output is added to hidden states
  // r.
  std::span<const float> drift;
  // [columns, columns]: upper, UᵀU = (Σ xxᵀ + λI)⁻¹, 0 below the diagonal.
  const float* inverse_factor;
};

std::uint64_t shift_bytes(std::size_t columns, std::size_t threads);

// targets [rows, columns] = W + (W Σ(x' - x)xᵀ + Σ(r' - r)xᵀ) (Σ xxᵀ + λI)⁻¹: the weights whose outputs for the inputs x of the pruned
// model are closest to Wx' + r' - r, with x' and r' of the dense one.
void shift_targets(const ShiftTask& task, float* targets, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
