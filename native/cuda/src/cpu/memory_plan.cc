#include "cpu/memory_plan.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/shard_layout.h"
#include "cpu/block.h"
#include "cpu/embedding.h"
#include "cpu/loss.h"
#include "cpu/projection.h"

namespace secateur::cpu {

namespace {

ProjectionForm form_of(const TensorLayout& tensor, Compute compute, double sparsity) {
  return Projection::planned_form(tensor.role, tensor.shape[0], tensor.shape[1], compute, sparsity);
}

std::vector<ProjectionForm> forms_of(const std::vector<TensorLayout>& shard, Compute compute, double sparsity) {
  std::vector<ProjectionForm> forms;
  for (const TensorLayout& tensor : shard) {
    if (is_multiplied(tensor.role)) forms.push_back(form_of(tensor, compute, sparsity));
  }
  return forms;
}

// As Shard keeps them.
std::uint64_t shard_bytes(const std::vector<TensorLayout>& shard, Compute compute, double sparsity) {
  std::uint64_t bytes = 0;
  for (const TensorLayout& tensor : shard) {
    if (is_multiplied(tensor.role)) {
      bytes += Projection::bytes(form_of(tensor, compute, sparsity), sparsity);
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
    const std::uint64_t bytes =
        allocation_scratch_bytes(tensor.shape[0], tensor.shape[1], workload.allocation_samples, workload.allocation, threads);
    if (bytes > largest.bytes) largest = {"allocation of " + std::string(name_of(tensor.role)), bytes};
  }
  return largest;
}

}  // namespace

MemoryPlan plan_session(const Architecture& architecture, Precision precision, const Workload& workload, std::size_t threads) {
  check_workload(workload, architecture);
  const Compute compute = precision.compute;
  const std::size_t samples = workload.samples_per_group;
  const std::size_t length = workload.sequence_length;
  const std::uint64_t dense_block = shard_bytes(workload.block, compute, 0);
  const std::uint64_t masked_block = shard_bytes(workload.block, compute, workload.sparsity);
  const MemoryItem states = {"hidden states",
                             StateBuffer::bytes(precision.hidden_states, workload.kept_tokens() * architecture.hidden_size)};
  const MemoryItem rotary = {"tables of positions", rotary_table_bytes(architecture, length)};
  const auto work = [&](double sparsity, std::optional<std::size_t> sketches) -> MemoryItem {
    const std::vector<ProjectionForm> forms = forms_of(workload.block, compute, sparsity);
    return {"work space of a block", block_work_bytes(architecture, forms, samples, length, threads, sketches)};
  };
  const MemoryItem next_block = {"weights of the next block", dense_block};

  PeakStep peak;
  const std::uint64_t embedding_work = embedding_work_bytes(architecture, forms_of(workload.embedding, compute, 0), length, threads);
  peak.consider("embed",
                {{"embedding", shard_bytes(workload.embedding, compute, 0)}, states, {"work space of the embedding", embedding_work}});
  if (workload.allocation_samples > 0) {
    const MemoryItem block = {"weights of a block", dense_block};
    peak.consider("collect", {block, next_block, states, rotary, work(0, workload.sketches)});
    peak.consider("allocate", {block, next_block, states, rotary, largest_allocation(workload, threads)});
  }
  peak.consider("propagate", {{"weights of a block", masked_block}, next_block, states, rotary, work(workload.sparsity, std::nullopt)});
  if (!workload.head.empty()) {
    const MemoryItem head = {"head", shard_bytes(workload.head, compute, 0)};
    peak.consider("propagate", {{"weights of a block", masked_block}, head, states, rotary, work(workload.sparsity, std::nullopt)});
    std::vector<TensorLayout> tensors = workload.head;
    // As head_forms has them: the head's weight comes first.
    std::ranges::partition(tensors, [](const TensorLayout& tensor) { return tensor.role == TensorRole::kHeadWeight; });
    const std::vector<ProjectionForm> forms = forms_of(tensors, compute, 0);
    peak.consider("measure",
                  {head, states, rotary, {"work space of the loss", loss_work_bytes(architecture, forms, samples, length, threads)}});
  }
  return std::move(peak).take();
}

}  // namespace secateur::cpu
