// How far the output of a block moves when its projections are pruned one at a time. Formula: docs/algorithms.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/block.h"
#include "cpu/shard.h"
#include "secateur/backend.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// The block is as it was afterwards, also when it throws: InvalidArgument or NonFinite naming the input that cannot be scored with,
// OutOfMemory, and what a run of the block throws.
std::vector<BlockSensitivity> measure_sensitivity(BlockRunner& blocks, Shard& block, std::span<const Group* const> groups,
                                                  std::span<const ProjectionInputSquares> projections, double sparsity,
                                                  const Architecture& architecture, Compute compute, MemoryBudget& budget, ThreadPool& pool,
                                                  CallContext& context);

// What it takes of the budget beside a run of the block: for a pruned projection; and for outputs of so many tokens, those of all groups
// and one more.
std::uint64_t pruned_projection_bytes(const ProjectionForm& pruned, double sparsity);
std::uint64_t compared_output_bytes(const Architecture& architecture, std::size_t tokens);

}  // namespace secateur::cpu
