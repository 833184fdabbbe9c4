// How good a projection's output is under a mask, from products of the masked weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quality.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

// Sets the qualities and variances of `rows` to those of its mask, whose row qualities are the same before and after.
void measure_mask(const AllocationInput& input, ThreadPool& pool, CallContext& context, AllocatedRows& rows);
// The same, of the products that the rows' outputs have with the mask.
void judge_mask(std::span<const OutputProducts> products, AllocatedRows& rows);

std::uint64_t masked_quality_bytes(std::size_t rows, std::size_t columns, std::size_t samples, std::size_t threads);

}  // namespace secateur::allocation
