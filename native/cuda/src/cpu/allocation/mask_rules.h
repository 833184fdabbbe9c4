// What is dropped where no search decides it: N:M patterns, given row sparsities, the lowest scores of the whole matrix, and the variant of
// Wanda. Runs on the host's weights for every backend. Formulas: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/instruction_set.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

inline bool is_rule(Allocation allocation) {
  return allocation == Allocation::kGiven || allocation == Allocation::kMatrix || allocation == Allocation::kScoreShare;
}

// Whether one of these rules decides, and not the qualities of rows or the same count in each.
inline bool decides_by_rule(const AllocationOptions& options) { return options.pattern.is_structured() || is_rule(options.allocation); }

// Everything but the qualities. Input and options are valid; weights are given.
AllocatedRows drop_by_rule(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                           cpu::InstructionSet instruction_set);

std::uint64_t rule_scratch_bytes(std::size_t rows, std::size_t columns, Allocation allocation, std::size_t threads);

}  // namespace secateur::allocation
