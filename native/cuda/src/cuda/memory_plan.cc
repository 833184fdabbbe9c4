#include "cuda/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/shard_layout.h"
#include "cuda/block_runner.h"
#include "cuda/device_repair.h"
#include "cuda/device_shard.h"
#include "cuda/gram_sums.h"
#include "cuda/row_allocation.h"
#include "cuda/session.h"

namespace secateur::gpu {

namespace {

// Where only bfloat16 is kept, scores and repairs are made from widened copies.
std::uint64_t widened_bytes(const TensorLayout& tensor, Compute compute) {
  return compute == Compute::kBF16 && tensor.element_type == ElementType::kBF16 ? block_bytes<float>(elements_of(tensor)) : 0;
}

MemoryItem largest_allocation(const Workload& workload, Compute compute) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const std::uint64_t bytes =
        allocation_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples) + widened_bytes(tensor, compute);
    if (bytes > largest.bytes) largest = {"allocation of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

MemoryItem largest_repair(const Workload& workload, Compute compute) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const RepairExtras extras = {workload.swaps, workload.dense_targets};
    const std::uint64_t repair =
        device_repair_bytes(tensor.shape[0], tensor.shape[1], workload.repair, extras) + widened_bytes(tensor, compute);
    const std::uint64_t bytes = std::max(repair, DeviceShard::replacing_bytes(tensor, compute));
    if (bytes > largest.bytes) largest = {"repair of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

// Sites whose Gram matrices are summed up at a time: of a block that is pruned in stages one, otherwise all.
std::vector<InputSites> gram_passes(const Workload& workload) {
  if (!workload.masked_in_stages) return {InputSites::all()};
  return {{InputSite::kAttentionInput}, {InputSite::kAttentionOutput}, {InputSite::kFeedForwardInput}, {InputSite::kFeedForwardHidden}};
}

std::string groups_text(std::size_t groups) { return std::to_string(groups) + (groups == 1 ? " group" : " groups"); }

// What takes the most, with the hidden states at those places.
MemoryPlan plan_memory(const Architecture& architecture, Compute compute, const Workload& workload, const GroupPlaces& places) {
  const std::size_t samples = workload.samples_per_group;
  const std::size_t length = workload.sequence_length;
  const ShardMemory embedding = DeviceShard::memory_of(workload.embedding, compute);
  const ShardMemory block = DeviceShard::memory_of(workload.block, compute);
  const ShardMemory head = DeviceShard::memory_of(workload.head, compute);
  // With dense targets, what is masked is kept as it was too, and so are the hidden states of the dense model.
  const std::uint64_t kept_dense = workload.dense_targets ? DeviceShard::dense_bytes(workload.block, compute) : 0;
  const std::uint64_t copies = workload.dense_targets ? 2 : 1;
  const MemoryItem weights = {"weights of a block", block.device + kept_dense};
  const auto arriving = [](const char* purpose, const ShardMemory& shard) -> MemoryItem {
    return {purpose, shard.device + shard.uploading};
  };
  const MemoryItem next_block = arriving("the next block and its upload", block);

  PeakStep peak;
  const auto consider = [&](const std::string& step, std::vector<MemoryItem> items) {
    // Kept from the first step to the last.
    if (places.on_device > 0) items.push_back({"hidden states of " + groups_text(places.on_device), copies * places.device_bytes()});
    if (places.on_host > 0) items.push_back({"hidden states that pass through the device", copies * places.slot_bytes()});
    items.push_back({"work space of a block", BlockRunner::work_bytes(architecture, compute, samples, length)});
    peak.consider(step, std::move(items));
  };
  consider("embed", {arriving("embedding and its upload", embedding),
                     {"work space of the embedding", embedding_bytes(architecture, samples, length)}});
  const std::uint64_t statistics = BlockRunner::statistics_bytes(architecture, samples);
  if (workload.allocation_samples > 0) {
    consider("collect", {weights, next_block, {"statistics of a group", statistics}});
    consider("allocate", {weights, next_block, largest_allocation(workload, compute)});
    if (workload.repair != Repair::kNone || workload.swaps) {
      for (const InputSites sites : gram_passes(workload)) {
        const MemoryItem grams = {"Gram matrices", gram_sums_bytes(architecture, sites, workload.swaps, workload.dense_targets)};
        const MemoryItem drift = {"drift of a group",
                                  workload.dense_targets ? BlockRunner::drift_bytes(architecture, samples, length, sites) : 0};
        consider("collect", {weights, next_block, {"statistics of a group", statistics}, grams, drift});
      }
      consider("repair", {weights, next_block, largest_repair(workload, compute)});
    }
  }
  consider("propagate", {weights, next_block});
  std::uint64_t results = std::max(block_bytes<unsigned>(1), workload.allocation_samples > 0 ? statistics : 0);
  if (!workload.head.empty()) {
    const MemoryItem arriving_head = arriving("head and its upload", head);
    consider("propagate", {weights, arriving_head});
    consider("measure", {arriving_head, {"work space of the loss", loss_bytes(architecture, samples, length)}});
    results = std::max(results, loss_result_bytes(samples, length));
  }
  MemoryPlan plan = std::move(peak).take();
  if (places.on_host > 0) plan.pinned.push_back({"hidden states of " + groups_text(places.on_host), copies * places.host_bytes()});
  plan.pinned.push_back({"shards on their way to the device", std::max({embedding.pinned, block.pinned, head.pinned})});
  plan.pinned.push_back({"results on their way from the device", results});
  return plan;
}

}  // namespace

std::uint64_t SessionPlan::pinned_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const MemoryItem& item : memory.pinned) bytes += item.bytes;
  return bytes;
}

SessionPlan plan_session(const Architecture& architecture, Compute compute, const Workload& workload, std::uint64_t available_bytes) {
  check_workload(workload, architecture);
  const std::size_t values = workload.samples_per_group * workload.sequence_length * architecture.hidden_size;
  GroupPlaces places{values, workload.groups, 0};
  MemoryPlan memory = plan_memory(architecture, compute, workload, places);
  // Fewer groups than that pass through the device take no less of it than they do.
  if (memory.bytes() > available_bytes && workload.groups > GroupPlaces::kSlots) {
    const std::uint64_t copies = workload.dense_targets ? 2 : 1;
    const std::uint64_t group = copies * block_bytes<float>(values);
    const std::uint64_t others = memory.bytes() - copies * places.device_bytes();
    const std::uint64_t room = available_bytes > others ? (available_bytes - others) / group : 0;
    places.on_device = room > GroupPlaces::kSlots ? room - GroupPlaces::kSlots : 0;
    places.on_host = workload.groups - places.on_device;
    memory = plan_memory(architecture, compute, workload, places);
  }
  return {std::move(memory), places, workload.samples_per_group, workload.sequence_length, workload.dense_targets};
}

}  // namespace secateur::gpu
