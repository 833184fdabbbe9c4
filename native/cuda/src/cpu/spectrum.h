// Eigenvalues of W·Wᵀ. Float64 throughout; the order of every sum is fixed, whatever the number of threads. Why by hand, and how:
// docs/decisions/eigenvalues-of-weights.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/projection.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// The squared singular values of a weight, min(rows, columns) of them, ascending. Those that are zero but for rounding lie below
// min(rows, columns) · 2⁻⁵² of the largest.
std::vector<double> squared_singular_values(const Matrix& weight, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

// What it takes of the budget.
std::uint64_t spectrum_scratch_bytes(std::size_t rows, std::size_t columns, std::size_t threads);

}  // namespace secateur::cpu
