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

// The most memory of measuring a group's loss, besides the head and the hidden states. `head`: as of head_forms.
std::uint64_t loss_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> head, std::size_t samples,
                              std::size_t sequence_length, std::size_t threads);

// Of the head's weight, and of the projection that leads to it where there is one.
std::vector<ProjectionForm> head_forms(const Architecture& architecture, const Shard& head);

// What the head's weight takes, [tokens, token width], of hidden states [tokens, hidden]: normalised and projected as the architecture
// says. Scratch: tokens · (hidden size + embedding size) floats, which the result may lie in.
const float* make_head_input(const Architecture& architecture, const Shard& head, const float* hidden, std::size_t tokens,
                             const ProjectionWorkspace& workspace, float* scratch, CallContext& context);

}  // namespace secateur::cpu
