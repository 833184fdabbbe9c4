// What is dropped where no search decides it: N:M patterns, given row sparsities, the lowest scores of the whole matrix, and the variant of
// Wanda. Runs on the host's weights for every backend. Formulas: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/instruction_set.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

// Whether one of these rules decides, and not the search or the same count in every row.
inline bool decides_by_rule(const AllocationOptions& options) {
  return options.pattern.is_structured() || (options.allocation != Allocation::kTrim && options.allocation != Allocation::kUniform);
}

// Everything but the qualities. Input and options are valid; weights are given.
AllocatedRows drop_by_rule(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context,
                           cpu::InstructionSet instruction_set);

std::uint64_t rule_scratch_bytes(std::size_t rows, std::size_t columns, Allocation allocation, std::size_t threads);

}  // namespace secateur::allocation
