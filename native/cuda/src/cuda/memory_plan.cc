#include "cuda/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/repair_plan.h"
#include "common/shard_layout.h"
#include "cpu/repair/product_totals.h"
#include "cuda/block_metrics.h"
#include "cuda/block_runner.h"
#include "cuda/device_repair.h"
#include "cuda/device_shard.h"
#include "cuda/gram_sums.h"
#include "cuda/host_work.h"
#include "cuda/row_allocation.h"
#include "cuda/session.h"
#include "cuda/widened_matrix.h"

namespace secateur::gpu {

namespace {

// The projection of the block for which the function gives the most bytes, as an item that says so.
template <class BytesOf>
MemoryItem largest(const Workload& workload, const std::string& purpose, const BytesOf& bytes_of) {
  MemoryItem item;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const std::uint64_t bytes = bytes_of(tensor);
    if (bytes > item.bytes) item = {purpose + std::string(name_of(tensor.role)), bytes};
  }
  return item;
}

// A pattern, of which a workload does not tell, takes less than the curves of uniform rows.
AllocationOptions options_of(const Workload& workload) {
  AllocationOptions options;
  options.allocation = workload.allocation;
  options.layer_quality = workload.layer_quality;
  options.row_quality = workload.row_quality;
  return options;
}

MemoryItem largest_allocation(const Workload& workload, Compute compute) {
  const AllocationOptions options = options_of(workload);
  return largest(workload, "allocation of ", [&](const TensorLayout& tensor) {
    return WidenedMatrix::bytes(tensor, compute) + allocation_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples, options);
  });
}

// Of the host.
MemoryItem largest_host_allocation(const Workload& workload, std::size_t threads) {
  const AllocationOptions options = options_of(workload);
  if (workload.allocation_samples == 0) return {};
  return largest(workload, "allocation on the host of ", [&](const TensorLayout& tensor) {
    return host_allocation_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples, options, threads);
  });
}

// Of the host: what a repair works from with the sums that make the last of it, or with the choice of swaps.
MemoryItem largest_host_repair(const Workload& workload, std::size_t threads) {
  if (workload.repair == Repair::kNone && !workload.swaps) return {};
  return largest(workload, "repair on the host of ", [&](const TensorLayout& tensor) {
    const std::uint64_t sums = cpu::ProductTotals::content_bytes(repair_input_shape(workload, tensor));
    const std::uint64_t swaps = workload.swaps ? host_swap_bytes(tensor.shape[0], tensor.shape[1], threads) : 0;
    return repair_input_bytes(workload, tensor) + std::max(sums, swaps);
  });
}

// Only the weights of blocks are asked for.
SessionPlan plan_spectrum(Compute compute, const Workload& workload, std::size_t threads) {
  const ShardMemory block = DeviceShard::memory_of(workload.block, compute);
  const MemoryItem widened =
      largest(workload, "widened ", [&](const TensorLayout& tensor) { return WidenedMatrix::bytes(tensor, compute); });
  PeakStep peak;
  peak.consider("budget", {{"weights of a block and their upload", block.device + block.uploading}});
  if (widened.bytes > 0) peak.consider("budget", {{"weights of a block", block.device}, widened});
  MemoryPlan plan = std::move(peak).take();
  plan.pinned.push_back({"shards on their way to the device", block.pinned});
  plan.pinned.push_back(largest(workload, "eigenvalues of ", [&](const TensorLayout& tensor) {
    return host_eigenvalues_bytes(tensor.shape[0], tensor.shape[1], threads);
  }));
  return {std::move(plan), block.pinned, {}, 0, 0, false};
}

MemoryItem largest_repair(const Workload& workload, Compute compute) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const RepairExtras extras = {workload.swaps, workload.dense_targets};
    const std::uint64_t repair =
        device_repair_bytes(tensor.shape[0], tensor.shape[1], workload.repair, extras) + WidenedMatrix::bytes(tensor, compute);
    const std::uint64_t bytes = std::max(repair, DeviceShard::replacing_bytes(tensor, compute));
    if (bytes > largest.bytes) largest = {"repair of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
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
    items.push_back({"hidden states in float32", copies * places.wide_bytes()});
    items.push_back({"work space of a block", BlockRunner::work_bytes(architecture, compute, samples, length)});
    std::erase_if(items, [](const MemoryItem& item) { return item.bytes == 0; });
    peak.consider(step, std::move(items));
  };
  consider("embed", {arriving("embedding and its upload", embedding),
                     {"work space of the embedding", embedding_bytes(architecture, samples, length)}});
  // Block metrics are made of statistics too.
  const bool collects = workload.allocation_samples > 0 || workload.metric != BlockMetric::kNone;
  const std::uint64_t statistics = BlockRunner::statistics_bytes(architecture, samples, workload.sketches);
  if (collects) {
    const std::uint64_t signs = BlockRunner::sign_bytes(samples, length, workload.sketches);
    consider("collect", {weights, next_block, {"statistics of a group", statistics + signs}});
    if (workload.repair != Repair::kNone || workload.swaps) {
      for (const InputSites sites : gram_passes(workload)) {
        const MemoryItem grams = {"Gram matrices", gram_sums_bytes(architecture, sites, workload.swaps, workload.dense_targets)};
        const MemoryItem drift = {"drift of a group",
                                  workload.dense_targets ? BlockRunner::drift_bytes(architecture, samples, length, sites) : 0};
        consider("collect", {weights, next_block, {"statistics of a group", statistics + signs}, grams, drift});
      }
      consider("repair", {weights, next_block, largest_repair(workload, compute)});
    }
  }
  if (workload.metric == BlockMetric::kOutliers) {
    consider("budget", {weights, next_block, {"scores of a projection", outlier_bytes(workload.block, compute)}});
  }
  if (workload.metric == BlockMetric::kSensitivity) {
    const std::uint64_t bytes = sensitivity_bytes(architecture, workload.block, compute, samples * length);
    consider("budget", {weights, next_block, {"pruned projections and what they change", bytes}});
  }
  if (workload.allocation_samples > 0) consider("allocate", {weights, next_block, largest_allocation(workload, compute)});
  consider("propagate", {weights, next_block});
  std::uint64_t results = std::max(block_bytes<unsigned>(1), collects ? statistics : 0);
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

SessionPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::uint64_t available_bytes,
                         std::size_t threads) {
  check_workload(workload, architecture);
  const Compute compute = precision.compute;
  if (workload.metric == BlockMetric::kSpectrum) return plan_spectrum(compute, workload, threads);
  const std::size_t values = workload.samples_per_group * workload.sequence_length * architecture.hidden_size;
  GroupPlaces places{precision.hidden_states, values, workload.groups, 0};
  MemoryPlan memory = plan_memory(architecture, compute, workload, places);
  // Fewer groups than that pass through the device take no less of it than they do.
  if (memory.bytes() > available_bytes && workload.groups > GroupPlaces::kSlots) {
    const std::uint64_t copies = workload.dense_targets ? 2 : 1;
    const std::uint64_t group = copies * places.group_bytes();
    const std::uint64_t others = memory.bytes() - copies * places.device_bytes();
    const std::uint64_t room = available_bytes > others ? (available_bytes - others) / group : 0;
    places.on_device = room > GroupPlaces::kSlots ? room - GroupPlaces::kSlots : 0;
    places.on_host = workload.groups - places.on_device;
    memory = plan_memory(architecture, compute, workload, places);
  }
  std::uint64_t pinned = 0;
  for (const MemoryItem& item : memory.pinned) pinned += item.bytes;
  // One after the other.
  const MemoryItem host = std::max(largest_host_allocation(workload, threads), largest_host_repair(workload, threads),
                                   [](const MemoryItem& a, const MemoryItem& b) { return a.bytes < b.bytes; });
  if (host.bytes > 0) memory.pinned.push_back(host);
  return {std::move(memory), pinned, places, workload.samples_per_group, workload.sequence_length, workload.dense_targets};
}

}  // namespace secateur::gpu
