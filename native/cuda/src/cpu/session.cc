#include "cpu/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/shard_layout.h"
#include "cpu/embedding.h"
#include "cpu/loss.h"
#include "cpu/outliers.h"
#include "cpu/sensitivity.h"
#include "cpu/spectrum.h"

namespace secateur::cpu {

CpuSession::CpuSession(const Architecture& architecture, Precision precision, bool dense_targets, ProgressRoom progress,
                       MemoryBudget& budget, ThreadPool& pool)
    : architecture_(architecture),
      precision_(precision),
      dense_targets_(dense_targets),
      progress_(progress),
      budget_(budget),
      pool_(pool),
      blocks_(architecture_, budget, pool) {
  check_architecture(architecture);
}

void CpuSession::load_shard(const std::string& shard, std::span<const TensorView> tensors, std::size_t attention_window,
                            CallContext& context) {
  if (shards_.contains(shard)) throw Error(ErrorCode::kFailedPrecondition, "Shard " + shard + " is loaded already.");
  shards_.emplace(
      shard, std::make_unique<Shard>(shard, tensors, attention_window, architecture_, precision_.compute, budget_, spare_, pool_, context));
  spare_.give_back();
}

void CpuSession::release_shard(const std::string& shard) {
  gram_states_.erase(shard);
  const auto released = shards_.find(shard);
  if (released == shards_.end()) return;
  const std::unique_ptr<Shard> last = std::move(released->second);
  // Another block may come to lie where it did.
  for (auto& [index, group] : groups_) {
    for (BlockProgress* const progress : {&group.progress, &group.dense_progress}) {
      if (progress->block == last.get()) progress->block = nullptr;
    }
  }
  shards_.erase(released);
  spare_.give_back();
  // Once the head is here no block follows.
  const auto is_block = [](const Shard& one) { return one.kind() == ShardKind::kBlock; };
  if (is_block(*last) && std::ranges::all_of(shards_, [&](const auto& entry) { return is_block(*entry.second); })) {
    std::move(*last).give_back_to(spare_);
  }
}

void CpuSession::embed(const std::string& shard, GroupTokens tokens, CallContext& context) {
  const Shard& embedding = find_shard(shard, ShardKind::kEmbedding);
  const std::uint32_t index = tokens.index;
  Group& group = create_group(std::move(tokens));
  try {
    embed_tokens(architecture_, embedding, group.tokens, group.hidden, budget_, pool_, context);
    if (group.dense) embed_tokens(architecture_, embedding, group.tokens, *group.dense, budget_, pool_, context);
  } catch (...) {
    groups_.erase(index);
    throw;
  }
}

std::vector<SiteStatistics> CpuSession::collect_statistics(const std::string& shard, std::uint32_t group, InputSites sites,
                                                           std::size_t sketches, CallContext& context) {
  check_sites(sites);
  check_sketches(sketches);
  const Shard& block = find_shard(shard, ShardKind::kBlock);
  Group& states = find_group(group);
  prepare_block_run();
  return blocks_.collect(block, states, sites, {}, sketches, context);
}

void CpuSession::propagate(const std::string& shard, std::uint32_t group, CallContext& context) {
  const Shard& block = find_shard(shard, ShardKind::kBlock);
  Group& states = find_group(group);
  move_on(group, [&] { blocks_.propagate(block, states, context); });
}

void CpuSession::propagate_dense(const std::string& shard, std::uint32_t group, CallContext& context) {
  const Shard& block = find_shard(shard, ShardKind::kBlock);
  Group& states = find_group(group);
  if (!states.dense) throw Error(ErrorCode::kFailedPrecondition, "The session keeps no hidden states of the dense model.");
  move_on(group, [&] { blocks_.propagate_dense(block, states, context); });
}

template <class Propagate>
void CpuSession::move_on(std::uint32_t group, Propagate propagate) {
  prepare_block_run();
  try {
    propagate();
  } catch (const OutOfMemory&) {
    // Thrown before anything is written.
    throw;
  } catch (...) {
    // Tiles that were done are the next block's input, the others this block's: nobody can use such hidden states.
    groups_.erase(group);
    throw;
  }
}

std::vector<double> CpuSession::measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> ranges,
                                             CallContext& context) {
  const Shard& head = find_shard(shard, ShardKind::kHead);
  const Group& states = find_group(group);
  blocks_.release_work_space();
  return cpu::measure_loss(architecture_, head, states, measured_ranges(states.tokens, ranges), budget_, pool_, context);
}

std::vector<float> CpuSession::last_logits(const std::string& shard, std::uint32_t group, CallContext& context) {
  const Shard& head = find_shard(shard, ShardKind::kHead);
  const Group& states = find_group(group);
  const Projection& weight = head.projection(TensorRole::kHeadWeight);
  const std::vector<ProjectionForm> forms = head_forms(architecture_, head);
  std::vector<float> scratch(architecture_.hidden_size + architecture_.embedding_size);
  std::vector<float> logits(architecture_.vocabulary_size);
  Buffer<std::uint8_t> memory(budget_, ProjectionWorkspace::bytes(forms, 1), "the input of the head");
  const ProjectionWorkspace workspace(memory.data(), forms, 1);
  const std::size_t hidden = architecture_.hidden_size;
  const float* const last = states.hidden.read((states.tokens.sequence_length - 1) * hidden, hidden, scratch.data());
  const float* const input = make_head_input(architecture_, head, last, 1, workspace, scratch.data(), context);
  weight.multiply(workspace.prepare(input, 1, architecture_.token_width(), {&weight}), nullptr, workspace, logits.data(), context);
  return logits;
}

AllocatedRows CpuSession::allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input,
                                        const AllocationOptions& options, CallContext& context) {
  const Matrix& weight = find_shard(shard, ShardKind::kBlock).projection(projection).dense();
  input.rows = weight.rows;
  input.columns = weight.columns;
  input.weights = weight.values.span();
  blocks_.release_work_space();
  freed_memory_kept_ = true;
  const Reservation scratch(budget_,
                            allocation_scratch_bytes(input.rows, input.columns, input.samples, options.allocation, options.layer_quality,
                                                     options.row_quality, pool_.size()),
                            "the allocation of " + std::string(secateur::name_of(projection)));
  return secateur::allocate_rows(input, options, pool_, context);
}

OutlierCount CpuSession::count_outliers(const std::string& shard, std::span<const ProjectionInputSquares> projections, double threshold,
                                        CallContext& context) {
  const Shard& block = find_shard(shard, ShardKind::kBlock);
  std::vector<ScoredWeight> weights;
  for (const ProjectionInputSquares& input : projections)
    weights.push_back({&block.projection(input.projection).dense(), input.mean_squares});
  blocks_.release_work_space();
  return cpu::count_outliers(weights, threshold, budget_, pool_, context);
}

std::vector<BlockSensitivity> CpuSession::measure_sensitivity(const std::string& shard, std::span<const std::uint32_t> groups,
                                                              std::span<const ProjectionInputSquares> projections, double sparsity,
                                                              CallContext& context) {
  Shard& block = find_shard(shard, ShardKind::kBlock);
  std::vector<const Group*> states;
  for (const std::uint32_t group : groups) states.push_back(&find_group(group));
  // Of a pass that collects: more than was planned beside the outputs.
  blocks_.release_work_space();
  return cpu::measure_sensitivity(blocks_, block, states, projections, sparsity, architecture_, precision_.compute, budget_, pool_,
                                  context);
}

std::vector<double> CpuSession::eigenvalues(const std::string& shard, TensorRole projection, CallContext& context) {
  const Matrix& weight = find_shard(shard, ShardKind::kBlock).projection(projection).dense();
  blocks_.release_work_space();
  return squared_singular_values(weight, budget_, pool_, context);
}

void CpuSession::apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) {
  // The plan of a masked block has no room for what a pass over the dense one took.
  blocks_.release_work_space();
  find_changing(shard, projection, context).apply_mask(mask, budget_, pool_, context);
}

void CpuSession::release_group(std::uint32_t group) { groups_.erase(group); }

std::vector<std::uint8_t> CpuSession::save_hidden_states(std::uint32_t group, CallContext& context) {
  const Group& states = find_group(group);
  context.check();
  const PhaseScope scope(context, "copy");
  const std::span<const std::uint8_t> hidden = states.hidden.content();
  std::vector<std::uint8_t> saved(hidden.begin(), hidden.end());
  if (states.dense) {
    const std::span<const std::uint8_t> dense = states.dense->content();
    saved.insert(saved.end(), dense.begin(), dense.end());
  }
  return saved;
}

void CpuSession::restore_hidden_states(GroupTokens tokens, std::span<const std::uint8_t> saved, CallContext& context) {
  const std::uint64_t values = tokens.ids.size() * architecture_.hidden_size;
  const std::uint64_t stream_bytes = StateBuffer::bytes(precision_.hidden_states, values);
  check_saved_bytes(tokens.index, saved.size(), stream_bytes * (dense_targets_ ? 2 : 1));
  context.check();
  const PhaseScope scope(context, "copy");
  Group& group = create_group(std::move(tokens));
  group.hidden.copy_from(saved.first(stream_bytes));
  if (group.dense) group.dense->copy_from(saved.subspan(stream_bytes));
}

std::vector<SiteStatistics> CpuSession::collect_with_gram(const std::string& shard, std::uint32_t group, InputSites sites, GramSites wanted,
                                                          std::size_t sketches, CallContext& context) {
  check_sites(sites);
  check_sketches(sketches);
  const Shard& block = find_shard(shard, ShardKind::kBlock);
  Group& states = find_group(group);
  prepare_block_run();
  std::map<InputSite, GramState>& grams = gram_states_[shard];
  GramTargets targets = {};
  for (std::size_t index = 0; index < targets.size(); ++index) {
    const auto site = static_cast<InputSite>(index);
    if (!sites.contains(site) || !wanted.sites.contains(site)) continue;
    auto found = grams.find(site);
    if (found == grams.end()) {
      const auto make_sums = [&](const char* what, ProductShape shape) {
        return ProductSums(budget_, shape, pool_.size(), what + std::string(secateur::name_of(site)));
      };
      const auto make_gram_sums = [&] { return make_sums("the Gram matrix of the ", gram_shape(input_width(architecture_, site))); };
      GramState state{make_gram_sums(), {}, {}, {}};
      if (wanted.hold_out) state.held_out = make_gram_sums();
      if (dense_targets_) state.drift = make_sums("the drift of the ", drift_shape(architecture_, site));
      found = grams.emplace(site, std::move(state)).first;
    }
    GramState& state = found->second;
    if (state.held_out.has_value() != wanted.hold_out) {
      throw Error(ErrorCode::kInvalidArgument, "All groups of a block hold samples out, or none.");
    }
    if (std::ranges::find(state.groups, group) != state.groups.end()) continue;
    targets[index] = {&state.sums, wanted.hold_out ? &*state.held_out : &state.sums, state.drift ? &*state.drift : nullptr};
  }
  try {
    std::vector<SiteStatistics> statistics = blocks_.collect(block, states, sites, targets, sketches, context);
    for (std::size_t index = 0; index < targets.size(); ++index) {
      if (targets[index].sums != nullptr) grams.at(static_cast<InputSite>(index)).groups.push_back(group);
    }
    return statistics;
  } catch (...) {
    // Part of the group may have been added.
    gram_states_.erase(shard);
    throw;
  }
}

GramPart CpuSession::take_gram_sums(const std::string& shard, InputSite site) {
  find_shard(shard, ShardKind::kBlock);
  std::map<InputSite, GramState>& states = gram_states_[shard];
  const auto found = states.find(site);
  if (found == states.end()) return {};
  GramState& state = found->second;
  const auto content_of = [](const ProductSums& sums) { return std::vector<std::uint8_t>(sums.content().begin(), sums.content().end()); };
  GramPart part{std::move(state.groups), content_of(state.sums)};
  if (state.held_out) part.held_out = content_of(*state.held_out);
  if (state.drift) part.drift = content_of(*state.drift);
  states.erase(found);
  return part;
}

std::vector<float> CpuSession::reduce_gram(std::size_t columns, std::size_t drift_rows, std::span<const std::span<const std::uint8_t>> sums,
                                           CallContext& context) {
  blocks_.release_work_space();
  const ProductShape shape = drift_rows == 0 ? gram_shape(columns) : ProductShape{drift_rows, columns};
  ProductTotals total(budget_, shape, "a Gram matrix");
  for (const std::span<const std::uint8_t> part : sums) total.add(part, pool_, context);
  std::vector<float> matrix(shape.rows * shape.columns);
  total.round_to(matrix.data(), pool_, context);
  return matrix;
}

RepairedRows CpuSession::repair_rows(const std::string& shard, TensorRole projection, RepairInput input, const RepairOptions& options,
                                     CallContext& context) {
  const Matrix& weight = find_shard(shard, ShardKind::kBlock).projection(projection).dense();
  input.rows = weight.rows;
  input.columns = weight.columns;
  input.weights = weight.values.span();
  blocks_.release_work_space();
  // The caller's, but as large as what it is worked on with.
  const Reservation gram(budget_, input.gram.size_bytes() + input.held_out_gram.size_bytes() + input.drift.size_bytes(),
                         "the Gram matrix of " + std::string(secateur::name_of(projection)));
  return secateur::repair_rows(input, options, budget_, pool_, context);
}

void CpuSession::replace_weights(const std::string& shard, TensorRole projection, ElementType stored, std::span<const std::uint8_t> bytes,
                                 CallContext& context) {
  find_changing(shard, projection, context).replace(stored, bytes, budget_, pool_, context);
}

// Allocations work in memory of other sizes than blocks do; both kept would be more than was planned.
void CpuSession::prepare_block_run() {
  if (std::exchange(freed_memory_kept_, false)) trim_freed_memory();
}

Shard& CpuSession::find_shard(const std::string& name, ShardKind kind) {
  const auto found = shards_.find(name);
  if (found == shards_.end()) throw Error(ErrorCode::kFailedPrecondition, "No shard " + name + " is loaded.");
  if (found->second->kind() != kind) {
    throw Error(ErrorCode::kFailedPrecondition, "Shard " + name + " is " + name_of(found->second->kind()) + ", not " + name_of(kind) + ".");
  }
  return *found->second;
}

Projection& CpuSession::find_changing(const std::string& shard, TensorRole projection, CallContext& context) {
  Shard& block = find_shard(shard, ShardKind::kBlock);
  if (dense_targets_) block.keep_dense(projection, precision_.compute, budget_, pool_, context);
  forget_progress(block, projection);
  return block.projection(projection);
}

void CpuSession::forget_progress(const Shard& block, TensorRole changing) {
  using enum BlockProgress::Place;
  // The first place that the projection is not needed for any more.
  const auto behind = [&] {
    switch (changing) {
      case TensorRole::kQueryWeight:
      case TensorRole::kKeyWeight:
      case TensorRole::kValueWeight:
        return kAttended;
      case TensorRole::kOutputWeight:
        return kHalfway;
      default:
        return kStart;
    }
  }();
  if (behind == kStart) return;
  for (auto& [index, group] : groups_) {
    if (group.progress.block == &block && group.progress.place >= behind) group.progress.place = kStart;
  }
}

Group& CpuSession::create_group(GroupTokens tokens) {
  check_tokens(tokens, architecture_);
  const std::uint32_t index = tokens.index;
  groups_.erase(index);
  const bool keeps_progress = has_room_for_progress(tokens.ids.size());
  const auto make_states = [&](const std::string& what) {
    return StateBuffer(precision_.hidden_states, budget_, tokens.ids.size() * architecture_.hidden_size, what + std::to_string(index));
  };
  StateBuffer hidden = make_states("hidden states of group ");
  std::optional<StateBuffer> dense;
  if (dense_targets_) dense = make_states("hidden states of the dense model of group ");
  Group& group = groups_.emplace(index, Group{std::move(tokens), std::move(hidden), std::move(dense)}).first->second;
  if (!keeps_progress) return group;
  try {
    const auto make_values = [&](const std::string& what) {
      return Buffer<float>(budget_, group.tokens.ids.size() * architecture_.hidden_size, what + std::to_string(index));
    };
    group.progress.values = make_values("activations between stages of group ");
    if (dense_targets_) group.dense_progress.values = make_values("activations of the dense model between stages of group ");
  } catch (...) {
    groups_.erase(index);
    throw;
  }
  return group;
}

bool CpuSession::has_room_for_progress(std::size_t tokens) {
  if (progress_.tokens == 0) return false;
  std::size_t with_progress = tokens;
  std::size_t all = tokens;
  for (const auto& [index, group] : groups_) {
    all += group.tokens.ids.size();
    if (group.progress.is_kept()) with_progress += group.tokens.ids.size();
  }
  if (all > progress_.tokens) {
    const std::size_t values = (all - progress_.tokens) * architecture_.hidden_size * (dense_targets_ ? 2 : 1);
    if (StateBuffer::bytes(precision_.hidden_states, values) > progress_.spare_bytes) {
      progress_ = {};
      for (auto& [index, group] : groups_) {
        group.progress = {};
        group.dense_progress = {};
      }
    }
  }
  return with_progress <= progress_.tokens;
}

Group& CpuSession::find_group(std::uint32_t index) {
  const auto found = groups_.find(index);
  if (found == groups_.end())
    throw Error(ErrorCode::kFailedPrecondition, "Group " + std::to_string(index) + " has no hidden states here; embed it first.");
  return found->second;
}

}  // namespace secateur::cpu
