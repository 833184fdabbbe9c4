// Error of a projection's output over all calibration tokens, from the Gram matrix of its input.
#pragma once

#include <cstddef>
#include <span>

#include "secateur/call_context.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Rows that a thread works on at a time. Fixed, so that results do not depend on the threads.
inline constexpr std::size_t kRepairRows = 64;

// Per thread [kRepairRows, columns] twice.
std::uint64_t output_error_bytes(std::size_t columns, std::size_t threads);

// errors[row] = d C dᵀ with d = weights - pruned of the row, which is ‖dX‖²; without `pruned`, of the weights themselves. Matrices are
// [rows, columns], C [columns, columns].
void measure_output_error(std::span<const float> weights, const float* pruned, std::span<const float> gram, std::span<double> errors,
                          MemoryBudget& budget, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu
