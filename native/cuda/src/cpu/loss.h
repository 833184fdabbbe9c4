// Loss of predicting each token of a group from those before it, through a model's head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/block.h"
#include "cpu/shard.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Mean negative log-likelihood of the tokens in the range of each sample, as measured_ranges gives them.
std::vector<double> measure_loss(const Architecture& architecture, const Shard& head, const Group& group,
                                 std::span<const TokenRange> ranges, MemoryBudget& budget, ThreadPool& pool, CallContext& context);

// The most memory of measuring a group's loss, besides the head and the hidden states.
std::uint64_t loss_work_bytes(const Architecture& architecture, const ProjectionForm& head, std::size_t samples,
                              std::size_t sequence_length, std::size_t threads);

}  // namespace secateur::cpu
