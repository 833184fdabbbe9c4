#include "cuda/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "common/shard_layout.h"
#include "cuda/block_runner.h"
#include "cuda/device_shard.h"
#include "cuda/row_allocation.h"
#include "cuda/session.h"

namespace secateur::gpu {

namespace {

MemoryItem largest_allocation(const Workload& workload, Compute compute) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    std::uint64_t bytes = allocation_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples);
    // Where only bfloat16 is kept, scores are made from widened copies.
    if (compute == Compute::kBF16 && tensor.element_type == ElementType::kBF16) bytes += elements_of(tensor) * sizeof(float);
    if (bytes > largest.bytes) largest = {"allocation of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

}  // namespace

MemoryPlan plan_session(const Architecture& architecture, Compute compute, const Workload& workload) {
  check_workload(workload, architecture);
  const std::size_t samples = workload.samples_per_group;
  const std::size_t length = workload.sequence_length;
  const ShardMemory embedding = DeviceShard::memory_of(workload.embedding, compute);
  const ShardMemory block = DeviceShard::memory_of(workload.block, compute);
  const ShardMemory head = DeviceShard::memory_of(workload.head, compute);
  const MemoryItem states = {"hidden states", workload.kept_tokens() * architecture.hidden_size * sizeof(float)};
  const MemoryItem weights = {"weights of a block", block.device};
  const MemoryItem work = {"work space of a block", BlockRunner::work_bytes(architecture, compute, samples, length)};
  const auto arriving = [](const char* purpose, const ShardMemory& shard) -> MemoryItem {
    return {purpose, shard.device + shard.uploading};
  };
  const MemoryItem next_block = arriving("the next block and its upload", block);

  PeakStep peak;
  peak.consider("embed", {arriving("embedding and its upload", embedding), states, {"token ids", samples * length * sizeof(std::int32_t)}});
  if (workload.allocation_samples > 0) {
    const MemoryItem statistics = {"statistics of a group", BlockRunner::statistics_bytes(architecture, samples)};
    peak.consider("collect", {weights, next_block, states, work, statistics});
    peak.consider("allocate", {weights, next_block, states, work, largest_allocation(workload, compute)});
  }
  peak.consider("propagate", {weights, next_block, states, work});
  if (!workload.head.empty()) {
    const MemoryItem arriving_head = arriving("head and its upload", head);
    peak.consider("propagate", {weights, arriving_head, states, work});
    peak.consider("measure", {arriving_head, states, work, {"work space of the loss", loss_bytes(architecture, samples, length)}});
  }
  MemoryPlan plan = std::move(peak).take();
  plan.pinned = {{"shards on their way to the device", std::max({embedding.pinned, 2 * block.pinned, head.pinned})}};
  return plan;
}

}  // namespace secateur::gpu
