#include "cpu/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/repair_plan.h"
#include "common/shard_layout.h"
#include "cpu/block.h"
#include "cpu/embedding.h"
#include "cpu/loss.h"
#include "cpu/outliers.h"
#include "cpu/projection.h"
#include "cpu/repair/product_sums.h"
#include "cpu/sensitivity.h"
#include "cpu/spectrum.h"

namespace secateur::cpu {

namespace {

// What projections have lost.
struct Dropped {
  double share = 0;
  // The block's last projection has lost nothing yet.
  bool but_for_the_last = false;

  double of(TensorRole role) const { return but_for_the_last && role == TensorRole::kDownWeight ? 0 : share; }
};

ProjectionForm form_of(const TensorLayout& tensor, Compute compute, Dropped dropped) {
  return Projection::planned_form(tensor.role, tensor.shape[0], tensor.shape[1], compute, dropped.of(tensor.role));
}

std::vector<ProjectionForm> forms_of(const std::vector<TensorLayout>& shard, Compute compute, Dropped dropped = {}) {
  std::vector<ProjectionForm> forms;
  for (const TensorLayout& tensor : shard) {
    if (is_multiplied(tensor.role)) forms.push_back(form_of(tensor, compute, dropped));
  }
  return forms;
}

// As Shard keeps them.
std::uint64_t shard_bytes(const std::vector<TensorLayout>& shard, Compute compute, Dropped dropped = {}) {
  std::uint64_t bytes = 0;
  for (const TensorLayout& tensor : shard) {
    if (is_multiplied(tensor.role)) {
      bytes += Projection::bytes(form_of(tensor, compute, dropped), dropped.of(tensor.role));
    } else {
      bytes += elements_of(tensor) * (tensor.role == TensorRole::kTokenEmbedding ? bytes_of(tensor.element_type) : sizeof(float));
    }
  }
  return bytes;
}

MemoryItem largest_allocation(const Workload& workload, std::size_t threads) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const std::uint64_t bytes = allocation_scratch_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples, workload.allocation,
                                                         workload.layer_quality, workload.row_quality, threads);
    if (bytes > largest.bytes) largest = {"allocation of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

MemoryItem largest_spectrum(const Workload& workload, std::size_t threads) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const std::uint64_t bytes = spectrum_scratch_bytes(tensor.shape[0], tensor.shape[1], threads);
    if (bytes > largest.bytes) largest = {"eigenvalues of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

MemoryItem scores_of_block(const Workload& workload) {
  std::uint64_t bytes = 0;
  for (const TensorLayout& tensor : workload.block) {
    if (is_multiplied(tensor.role)) bytes += outlier_scratch_bytes(tensor.shape[0], tensor.shape[1]);
  }
  return {"scores of a block", bytes};
}

// With the Gram matrices, and the drift, it works from.
MemoryItem largest_repair(const Workload& workload, std::size_t threads) {
  MemoryItem largest;
  for (const TensorLayout& tensor : workload.block) {
    if (!is_multiplied(tensor.role)) continue;
    const RepairExtras extras = {workload.swaps, workload.dense_targets};
    const std::uint64_t bytes =
        repair_bytes(tensor.shape[0], tensor.shape[1], workload.repair, extras, threads) + repair_input_bytes(workload, tensor);
    if (bytes > largest.bytes) largest = {"repair of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

std::uint64_t gram_bytes(const Architecture& architecture, const Workload& workload, InputSites sites, std::size_t threads) {
  std::uint64_t bytes = 0;
  for (std::size_t index = 0; index < std::size(kInputSiteNames); ++index) {
    const auto site = static_cast<InputSite>(index);
    if (!sites.contains(site)) continue;
    bytes += gram_matrices(workload) * ProductSums::bytes(gram_shape(input_width(architecture, site)), threads);
    if (workload.dense_targets) bytes += ProductSums::bytes(drift_shape(architecture, site), threads);
  }
  return bytes;
}

MemoryPlan plan_memory(const Architecture& architecture, Precision precision, const Workload& workload, std::size_t threads,
                       bool keeps_progress) {
  const Compute compute = precision.compute;
  const std::size_t samples = workload.samples_per_group;
  const std::size_t length = workload.sequence_length;
  const std::uint64_t dense_block = shard_bytes(workload.block, compute);
  const Dropped masked{workload.sparsity};
  // With dense targets, what is masked is kept as it was too.
  const auto block_bytes = [&](Dropped dropped) {
    return shard_bytes(workload.block, compute, dropped) + (workload.dense_targets && dropped.share > 0 ? dense_block : 0);
  };
  const std::uint64_t masked_block = block_bytes(masked);
  const std::size_t kept_tokens = (workload.dense_targets ? 2 : 1) * workload.kept_tokens();
  const MemoryItem states = {"hidden states", StateBuffer::bytes(precision.hidden_states, kept_tokens * architecture.hidden_size)};
  const MemoryItem progress = {"activations between stages", keeps_progress ? block_progress_bytes(architecture, kept_tokens) : 0};
  const MemoryItem rotary = {"tables of positions", rotary_table_bytes(architecture, length)};
  const auto work = [&](Dropped dropped, const std::optional<Collected>& collected) -> MemoryItem {
    const auto bytes_of_run = [&](Dropped lost, const std::optional<Collected>& wanted) {
      std::vector<ProjectionForm> forms = forms_of(workload.block, compute, lost);
      // Some may have lost less than the others, or nothing, and read another copy of their input.
      if (lost.share > 0) std::ranges::copy(forms_of(workload.block, compute), std::back_inserter(forms));
      return block_work_bytes(architecture, forms, samples, length, threads, wanted);
    };
    const std::uint64_t bytes = bytes_of_run(dropped, collected);
    return {"work space of a block", workload.dense_targets ? std::max(bytes, bytes_of_run({}, std::nullopt)) : bytes};
  };
  // A model that is measured after it was pruned has nothing but blocks that were.
  const bool measures = !workload.head.empty();
  const MemoryItem next_block = {"weights of the next block", measures ? masked_block : dense_block};

  PeakStep peak;
  const auto consider = [&](const std::string& step, std::vector<MemoryItem> items) {
    if (progress.bytes > 0) items.push_back(progress);
    peak.consider(step, std::move(items));
  };
  if (workload.metric == BlockMetric::kSpectrum) {
    peak.consider("budget", {{"weights of a block", dense_block}, largest_spectrum(workload, threads)});
    return std::move(peak).take();
  }
  const std::uint64_t embedding_work = embedding_work_bytes(architecture, forms_of(workload.embedding, compute), length, threads);
  consider("embed", {{"embedding", shard_bytes(workload.embedding, compute)}, states, {"work space of the embedding", embedding_work}});
  if (workload.metric == BlockMetric::kOutliers) {
    const MemoryItem block = {"weights of a block", dense_block};
    consider("collect", {block, next_block, states, rotary, work({}, Collected{})});
    consider("budget", {block, next_block, states, rotary, scores_of_block(workload)});
  }
  if (workload.metric == BlockMetric::kSensitivity) {
    const MemoryItem block = {"weights of a block", dense_block};
    consider("collect", {block, next_block, states, rotary, work({}, Collected{})});
    const MemoryItem outputs = {"outputs of a block", compared_output_bytes(architecture, workload.kept_tokens() + samples * length)};
    for (const TensorLayout& tensor : workload.block) {
      if (!is_multiplied(tensor.role)) continue;
      std::vector<ProjectionForm> forms = forms_of(workload.block, compute);
      forms.push_back(form_of(tensor, compute, masked));
      const MemoryItem pruned = {"pruned " + std::string(name_of(tensor.role)), pruned_projection_bytes(forms.back(), workload.sparsity)};
      const MemoryItem run = {"work space of a block", block_work_bytes(architecture, forms, samples, length, threads, std::nullopt)};
      consider("budget", {block, next_block, states, rotary, outputs, pruned, run});
    }
  }
  if (workload.allocation_samples > 0) {
    const auto consider_block = [&](Dropped dropped) {
      const MemoryItem block = {"weights of a block", block_bytes(dropped)};
      consider("collect", {block, next_block, states, rotary, work(dropped, Collected{workload.sketches, {}})});
      consider("allocate", {block, next_block, states, rotary, largest_allocation(workload, threads)});
      if (workload.repair == Repair::kNone && !workload.swaps) return;
      for (const InputSites sites : gram_passes(workload)) {
        const MemoryItem grams = {"Gram matrices", gram_bytes(architecture, workload, sites, threads)};
        const MemoryItem drift = {"drift of a group",
                                  workload.dense_targets ? block_drift_bytes(architecture, samples * length, sites) : 0};
        consider("collect", {block, next_block, states, rotary, work(dropped, Collected{workload.sketches, sites}), grams, drift});
      }
      consider("repair", {block, next_block, states, rotary, largest_repair(workload, threads)});
    };
    consider_block({});
    if (workload.masked_in_stages) consider_block({workload.sparsity, true});
  }
  consider("propagate", {{"weights of a block", masked_block}, next_block, states, rotary, work(masked, std::nullopt)});
  if (measures) {
    const MemoryItem head = {"head", shard_bytes(workload.head, compute)};
    consider("propagate", {{"weights of a block", masked_block}, head, states, rotary, work(masked, std::nullopt)});
    std::vector<TensorLayout> tensors = workload.head;
    // As head_forms has them: the head's weight comes first.
    std::ranges::partition(tensors, [](const TensorLayout& tensor) { return tensor.role == TensorRole::kHeadWeight; });
    const std::vector<ProjectionForm> forms = forms_of(tensors, compute);
    consider("measure", {head, states, rotary, {"work space of the loss", loss_work_bytes(architecture, forms, samples, length, threads)}});
  }
  return std::move(peak).take();
}

}  // namespace

SessionPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::size_t threads,
                         std::uint64_t room) {
  check_workload(workload, architecture);
  if (workload.masked_in_stages && can_keep_progress(architecture)) {
    MemoryPlan memory = plan_memory(architecture, precision, workload, threads, true);
    if (memory.bytes() <= room) return {memory, {.tokens = workload.kept_tokens(), .spare_bytes = room - memory.bytes()}};
  }
  return {plan_memory(architecture, precision, workload, threads, false), {}};
}

}  // namespace secateur::cpu
