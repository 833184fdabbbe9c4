#include "cpu/block.h"

#include "common/rotary_tables.h"
#include "common/shard_layout.h"
#include "cpu/block_pass.h"

namespace secateur::cpu {

namespace {

BlockProgress* kept(BlockProgress& progress) { return progress.is_kept() ? &progress : nullptr; }

}  // namespace

std::uint64_t block_drift_bytes(const Architecture& architecture, std::size_t tokens, InputSites sites) {
  std::uint64_t bytes = 0;
  for (std::size_t site = 0; site < kInputSites; ++site) {
    if (sites.contains(static_cast<InputSite>(site)))
      bytes += tokens * drift_shape(architecture, static_cast<InputSite>(site)).rows * sizeof(float);
  }
  return bytes;
}

// The same memory holds what attention gives and then the hidden states that this is added to.
bool can_keep_progress(const Architecture& architecture) { return architecture.query_width() == architecture.hidden_size; }

std::uint64_t block_progress_bytes(const Architecture& architecture, std::size_t tokens) {
  return tokens * architecture.hidden_size * sizeof(float);
}

std::uint64_t rotary_table_bytes(const Architecture& architecture, std::size_t sequence_length) {
  if (architecture.position_encoding != PositionEncoding::kRotary) return 0;
  return 2 * sequence_length * (architecture.head_dimension / 2) * sizeof(float);
}

BlockRunner::BlockRunner(const Architecture& architecture, MemoryBudget& budget, ThreadPool& pool)
    : architecture_(architecture), budget_(budget), pool_(pool) {}

std::vector<SiteStatistics> BlockRunner::collect(const Shard& block, Group& group, InputSites sites, const GramTargets& grams,
                                                 std::size_t sketches, CallContext& context) {
  BlockTask task{.block = block,
                 .group = group,
                 .context = context,
                 .sites = sites,
                 .grams = grams,
                 .sketches = sketches,
                 .progress = kept(group.progress)};
  begin_drift(task, group.dense_progress);
  return run(task);
}

void BlockRunner::begin_drift(BlockTask& task, BlockProgress& progress) {
  InputSites drifting = {};
  for (std::size_t site = 0; site < kInputSites; ++site) {
    if (task.grams[site].drift != nullptr) drifting.add(static_cast<InputSite>(site));
  }
  if (drifting.empty()) return;
  const std::size_t tokens = task.group.tokens.ids.size();
  const std::size_t size = block_drift_bytes(architecture_, tokens, drifting) / sizeof(float);
  if (drift_.size() < size) {
    drift_ = {};
    drift_ = Buffer<float>(budget_, size, "the drift of a group");
  }
  float* free = drift_.data();
  for (std::size_t site = 0; site < kInputSites; ++site) {
    if (task.grams[site].drift == nullptr) continue;
    task.drift[site] = free;
    free += tokens * task.grams[site].drift->shape().rows;
  }
  run({.block = task.block,
       .group = task.group,
       .context = task.context,
       .sites = drifting,
       .dense = true,
       .progress = kept(progress),
       .drift = task.drift});
}

void BlockRunner::propagate_dense(const Shard& block, Group& group, CallContext& context) {
  run({.block = block, .group = group, .context = context, .output = &*group.dense, .dense = true, .progress = kept(group.dense_progress)});
}

void BlockRunner::propagate(const Shard& block, Group& group, CallContext& context) {
  run({.block = block, .group = group, .context = context, .output = &group.hidden, .progress = kept(group.progress)});
}

void BlockRunner::run_into(const Shard& block, const Group& group, StateBuffer& output, CallContext& context) {
  run({.block = block, .group = group, .context = context, .output = &output});
}

void BlockRunner::make_rotary_tables(std::size_t sequence_length) {
  if (architecture_.position_encoding != PositionEncoding::kRotary || rotary_positions_ >= sequence_length) return;
  const std::size_t half = architecture_.head_dimension / 2;
  rotary_positions_ = 0;
  cosines_ = Buffer<float>(budget_, sequence_length * half, "cosines of the positions");
  sines_ = Buffer<float>(budget_, sequence_length * half, "sines of the positions");
  fill_rotary_tables(architecture_, sequence_length, cosines_.data(), sines_.data());
  rotary_positions_ = sequence_length;
}

std::vector<SiteStatistics> BlockRunner::run(const BlockTask& task) {
  make_rotary_tables(task.length());
  const BlockProjections projections(task, architecture_);
  const WorkSizes sizes(architecture_, projections.forms(), task.samples(), task.length());
  const std::optional<Collected> collected = task.collected();
  const std::size_t needed = WorkSpace(architecture_, sizes, pool_.size(), collected, nullptr).bytes;
  if (work_space_.size() < needed) {
    // The smaller one goes first.
    work_space_ = {};
    work_space_ = Buffer<std::uint8_t>(budget_, needed, "the work space of a group");
  }
  const WorkSpace work(architecture_, sizes, pool_.size(), collected, work_space_.data());
  return BlockPass(task, architecture_, projections, sizes, work, {cosines_.data(), sines_.data()}, pool_).run();
}

}  // namespace secateur::cpu
