// Loss of predicting each token of a group from those before it, through a model's head.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/block.h"
#include "cpu/shard.h"
#include "secateur/backend.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// Mean negative log-likelihood of tokens 1 … T-1 of each sample. Throws InvalidArgument for samples of one token.
std::vector<double> measure_loss(const Architecture& architecture, const Shard& head, const Group& group, MemoryBudget& budget,
                                 ThreadPool& pool, CallContext& context);

// Memory of measuring a group's loss, besides the head and the hidden states.
std::uint64_t loss_work_bytes(const Architecture& architecture, const ProjectionForm& head, std::size_t samples,
                              std::size_t sequence_length, std::size_t threads);

}  // namespace secateur::cpu
