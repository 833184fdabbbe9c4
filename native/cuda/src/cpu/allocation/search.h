// TRIM's search for the sparsity of each row (arXiv 2505.16743), on quality curves instead of masked products.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "quality.h"
#include "secateur/allocation.h"
#include "secateur/call_context.h"

namespace secateur::allocation {

// floor(float32(columns) * sparsity), at least 0 and at most columns.
std::size_t dropped_count(std::size_t columns, float sparsity);

// Unbiased; 0 for less than two values.
double variance(std::span<const double> values);

// Sets products[row] to those of row `row` with counts[row] weights dropped.
using LookUp = std::function<void(std::span<const std::size_t> counts, std::span<OutputProducts> products)>;

// What is dropped, and the mask, are left to the caller.
AllocatedRows search_rows(std::size_t rows, std::size_t columns, const LookUp& look_up, float target, const AllocationOptions& options,
                          CallContext& context);

}  // namespace secateur::allocation
