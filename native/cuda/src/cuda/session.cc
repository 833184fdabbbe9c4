#include "cuda/session.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/shard_layout.h"
#include "cpu/repair/product_totals.h"
#include "cuda/block_metrics.h"
#include "cuda/device_repair.h"
#include "cuda/host_work.h"
#include "cuda/kernels/cross_entropy.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/embedding.h"
#include "cuda/kernels/mask.h"
#include "cuda/row_allocation.h"
#include "cuda/transfers.h"
#include "cuda/widened_matrix.h"

namespace secateur::gpu {

namespace {

// Logits in memory at a time: bounded for any vocabulary and any number of tokens.
constexpr std::size_t kLossTokens = 1024;
constexpr std::size_t kLossWords = 8192;

const Architecture& checked(const Architecture& architecture) {
  check_architecture(architecture);
  return architecture;
}

// Sizes of the tiles in which the loss of a group is measured; `predictions`: tokens that are measured of the sample that has the most.
struct LossTiles {
  std::size_t tokens;
  std::size_t words;

  LossTiles(std::size_t vocabulary, std::size_t predictions)
      : tokens(std::min(kLossTokens, predictions)), words(std::min(kLossWords, vocabulary)) {}
};

}  // namespace

std::uint64_t loss_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length) {
  // The first token is predicted by nothing.
  const std::size_t predictions = sequence_length - 1;
  const LossTiles tiles(architecture.vocabulary_size, predictions);
  return block_bytes<float>(tiles.tokens * (architecture.hidden_size + architecture.embedding_size)) +
         block_bytes<float>(tiles.tokens * tiles.words) + block_bytes<std::int32_t>(samples * sequence_length) +
         loss_result_bytes(samples, sequence_length);
}

std::uint64_t embedding_bytes(const Architecture& architecture, std::size_t samples, std::size_t sequence_length) {
  return block_bytes<std::int32_t>(samples * sequence_length) + block_bytes<float>(sequence_length * architecture.embedding_size);
}

std::uint64_t loss_result_bytes(std::size_t samples, std::size_t sequence_length) {
  const std::size_t predictions = samples * (sequence_length - 1);
  return block_bytes<double>(predictions) + block_bytes<float>(predictions);
}

CudaSession::CudaSession(const Architecture& architecture, Precision precision, MemoryBudget& budget, MemoryBudget& in_use,
                         MatrixLibrary& products, ThreadPool& pool, const std::optional<SessionPlan>& plan)
    : architecture_(checked(architecture)),
      compute_(precision.compute),
      memory_(budget, in_use),
      pool_(pool),
      timeline_(stream_),
      blocks_(architecture_, compute_, memory_, products, stream_, timeline_),
      products_(products),
      groups_(memory_.reserve(plan ? plan->memory.bytes() : 0, plan ? plan->pinned_bytes : 0), stream_, architecture_.hidden_size,
              plan ? plan->groups : GroupPlaces{.type = precision.hidden_states}),
      grams_(architecture_, memory_, stream_) {
  if (plan && plan->dense_targets) dense_groups_.emplace(memory_, stream_, architecture_.hidden_size, plan->groups);
  if (plan && plan->runs_blocks()) blocks_.reserve(plan->samples_per_group, plan->sequence_length);
}

// What a failed call left on the streams is over before anything it used goes away, and its timings are forgotten.
template <class Work>
auto CudaSession::guarded(const Work& work) {
  try {
    return work();
  } catch (...) {
    static_cast<void>(cudaStreamSynchronize(stream_.get()));
    timeline_.abandon();
    throw;
  }
}

void CudaSession::load_shard(const std::string& shard, std::span<const TensorView> tensors, std::size_t attention_window,
                             CallContext& context) {
  if (shards_.contains(shard)) throw Error(ErrorCode::kFailedPrecondition, "Shard " + shard + " is loaded already.");
  context.check();
  const PhaseScope scope(context, "convert");
  // Memory of one upload at a time is planned. Those before are nearly over: the stream takes one after the other.
  for (const auto& [name, other] : shards_) other->settle();
  shards_.emplace(
      shard, std::make_unique<DeviceShard>(shard, tensors, attention_window, architecture_, compute_, memory_, free_end(), pool_, upload_));
}

// Of the memory for shards.
End CudaSession::free_end() const {
  const bool high_is_taken = std::ranges::any_of(shards_, [](const auto& entry) { return entry.second->end() == End::kHigh; });
  return high_is_taken ? End::kLow : End::kHigh;
}

void CudaSession::release_shard(const std::string& shard) {
  shards_.erase(shard);
  grams_.forget(shard);
}

void CudaSession::embed(const std::string& shard, GroupTokens tokens, CallContext& context) {
  DeviceShard& embedding = find_shard(shard, ShardKind::kEmbedding);
  check_tokens(tokens, architecture_);
  const std::size_t hidden = architecture_.hidden_size;
  const std::uint32_t index = tokens.index;
  const DeviceGroup group = groups_.create(std::move(tokens));
  const std::vector<std::int32_t>& words = group.tokens.ids;
  const std::size_t length = group.tokens.sequence_length;
  const bool projected = architecture_.embedding_size > 0;
  try {
    DeviceBuffer<std::int32_t> ids(memory_, words.size(), "token ids");
    DeviceBuffer<float> rows(memory_, length * architecture_.embedding_size, "rows of the token table");
    blocks_.reserve_narrowed(rows.size());
    guarded([&] {
      context.check();
      timeline_.begin("embed", 0, 8 * static_cast<double>(words.size() * hidden));
      embedding.ready().hold(stream_);
      upload(words, ids.data(), stream_, "uploading token ids");
      const float* const table = embedding.find(TensorRole::kPositionEmbedding);
      const float* const positions = table == nullptr ? nullptr : table + architecture_.learned_position_offset * hidden;
      const auto look_up = [&](std::size_t count, const std::int32_t* from, const float* added, float* to) {
        check(
            gpu::embed({count, length, architecture_.token_width(), from, embedding.token_table(), embedding.token_table_type(), added, to},
                       stream_.get()),
            "embedding tokens");
      };
      if (!projected) look_up(words.size(), ids.data(), positions, group.hidden);
      for (std::size_t sample = 0; projected && sample < group.tokens.samples; ++sample) {
        float* const of_sample = group.hidden + sample * length * hidden;
        look_up(length, ids.data() + sample * length, nullptr, rows.data());
        blocks_.multiply(embedding.matrix(TensorRole::kEmbeddingProjectionWeight), nullptr, rows.data(), length, of_sample);
        if (positions != nullptr) check(add(of_sample, positions, length * hidden, stream_.get()), "adding positions");
      }
      if (dense_groups_) {
        const DeviceGroup dense = dense_groups_->create(GroupTokens(group.tokens));
        check(cudaMemcpyAsync(dense.hidden, group.hidden, words.size() * hidden * sizeof(float), cudaMemcpyDeviceToDevice, stream_.get()),
              "copying hidden states");
      }
      timeline_.finish(context, "Embedding tokens");
    });
    groups_.written(index);
    if (dense_groups_) dense_groups_->written(index);
  } catch (...) {
    release_group(index);
    throw;
  }
}

std::vector<SiteStatistics> CudaSession::collect_statistics(const std::string& shard, std::uint32_t group, InputSites sites,
                                                            std::size_t sketches, CallContext& context) {
  check_sites(sites);
  check_sketches(sketches);
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  const DeviceGroup states = groups_.find(group);
  return guarded([&] { return blocks_.collect(block, states, sites, sketches, {}, nullptr, context); });
}

void CudaSession::propagate(const std::string& shard, std::uint32_t group, CallContext& context) {
  move_on(find_shard(shard, ShardKind::kBlock), group, false, context);
}

void CudaSession::propagate_dense(const std::string& shard, std::uint32_t group, CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  if (!dense_groups_) throw Error(ErrorCode::kFailedPrecondition, "The session keeps no hidden states of the dense model.");
  move_on(block, group, true, context);
}

void CudaSession::move_on(DeviceShard& block, std::uint32_t group, bool dense, CallContext& context) {
  HiddenStates& groups = dense ? *dense_groups_ : groups_;
  const DeviceGroup states = groups.find(group);
  try {
    guarded([&] { blocks_.propagate(block, states, dense, context); });
    groups.written(group);
  } catch (const OutOfMemory&) {
    // Thrown before anything is written.
    throw;
  } catch (...) {
    // Samples that were done are the next block's input, the others this block's: nobody can use such hidden states.
    release_group(group);
    throw;
  }
}

const float* CudaSession::make_head_input(DeviceShard& head, const float* hidden, std::size_t tokens, float* scratch) {
  const float* states = hidden;
  if (architecture_.final_normalization) {
    blocks_.normalize(tokens, states, head.find(TensorRole::kFinalNormWeight), head.find(TensorRole::kFinalNormBias), scratch);
    states = scratch;
  }
  if (architecture_.embedding_size == 0) return states;
  float* const projected = scratch + tokens * architecture_.hidden_size;
  blocks_.multiply(head.matrix(TensorRole::kHeadProjectionWeight), nullptr, states, tokens, projected);
  return projected;
}

std::vector<double> CudaSession::measure_loss(const std::string& shard, std::uint32_t group, std::span<const TokenRange> given,
                                              CallContext& context) {
  DeviceShard& head = find_shard(shard, ShardKind::kHead);
  const DeviceGroup states = groups_.find(group);
  const std::size_t length = states.tokens.sequence_length;
  const std::vector<TokenRange> ranges = measured_ranges(states.tokens, given);
  std::size_t predictions = 0;
  std::size_t longest = 0;
  for (const auto& [first, end] : ranges) {
    predictions += end - first;
    longest = std::max(longest, end - first);
  }
  const std::size_t hidden = architecture_.hidden_size;
  const DeviceMatrix& weight = head.matrix(TensorRole::kHeadWeight);
  const LossTiles tiles(weight.rows, longest);
  const std::size_t tile_tokens = tiles.tokens;
  const std::size_t tile_words = tiles.words;
  DeviceBuffer<float> scratch(memory_, tile_tokens * (hidden + architecture_.embedding_size), "logits");
  DeviceBuffer<float> logits(memory_, tile_tokens * tile_words, "logits");
  DeviceBuffer<std::int32_t> ids(memory_, states.tokens.ids.size(), "token ids");
  DeviceBuffer<double> log_sums(memory_, predictions, "the loss of a group");
  DeviceBuffer<float> next_logits(memory_, predictions, "the loss of a group");
  blocks_.reserve_narrowed(tile_tokens * std::max(hidden, architecture_.embedding_size));
  PinnedBuffer<double> sums_on_host(memory_, predictions, "the loss of a group");
  PinnedBuffer<float> next_on_host(memory_, predictions, "the loss of a group");
  guarded([&] {
    head.ready().hold(stream_);
    upload(states.tokens.ids, ids.data(), stream_, "uploading token ids");
    std::size_t place = 0;
    for (std::size_t sample = 0; sample < ranges.size(); ++sample) {
      const auto [first, end] = ranges[sample];
      for (std::size_t position = first; position < end; position += tile_tokens) {
        const std::size_t count = std::min(tile_tokens, end - position);
        // A token is predicted from the one before it.
        const float* const input = make_head_input(head, states.hidden + (sample * length + position - 1) * hidden, count, scratch.data());
        for (std::size_t word = 0; word < weight.rows; word += tile_words) {
          context.check();
          const std::size_t words = std::min(tile_words, weight.rows - word);
          blocks_.multiply_rows(weight, word, words, input, count, logits.data());
          timeline_.begin("loss", 4 * static_cast<double>(count * words), 8 * static_cast<double>(count * words));
          check(accumulate_cross_entropy({count, words, word, logits.data(), ids.data() + sample * length + position,
                                          log_sums.data() + place, next_logits.data() + place},
                                         stream_.get()),
                "cross entropy");
        }
        place += count;
      }
    }
    download(log_sums.data(), {sums_on_host.data(), log_sums.size()}, stream_, "reading losses");
    download(next_logits.data(), {next_on_host.data(), next_logits.size()}, stream_, "reading losses");
    timeline_.finish(context, "Measuring the loss");
  });
  std::vector<double> losses(ranges.size());
  std::size_t place = 0;
  for (std::size_t sample = 0; sample < ranges.size(); ++sample) {
    const std::size_t count = ranges[sample].end - ranges[sample].first;
    double sum = 0;
    for (const std::size_t end = place + count; place < end; ++place) {
      sum += sums_on_host.data()[place] - static_cast<double>(next_on_host.data()[place]);
    }
    losses[sample] = sum / static_cast<double>(count);
    if (!std::isfinite(losses[sample])) {
      throw Error(ErrorCode::kNonFinite, "The loss of sample " + std::to_string(sample) + " of group " +
                                             std::to_string(states.tokens.index) + " is not finite." + overflow_hint(compute_));
    }
  }
  return losses;
}

std::vector<float> CudaSession::last_logits(const std::string& shard, std::uint32_t group, CallContext& context) {
  DeviceShard& head = find_shard(shard, ShardKind::kHead);
  const DeviceGroup states = groups_.find(group);
  const std::size_t hidden = architecture_.hidden_size;
  const DeviceMatrix& weight = head.matrix(TensorRole::kHeadWeight);
  DeviceBuffer<float> scratch(memory_, hidden + architecture_.embedding_size, "logits");
  DeviceBuffer<float> logits(memory_, weight.rows, "logits");
  blocks_.reserve_narrowed(std::max(hidden, architecture_.embedding_size));
  std::vector<float> result(weight.rows);
  guarded([&] {
    context.check();
    head.ready().hold(stream_);
    const float* const input = make_head_input(head, states.hidden + (states.tokens.sequence_length - 1) * hidden, 1, scratch.data());
    blocks_.multiply(weight, nullptr, input, 1, logits.data());
    download(logits.data(), result, stream_, "reading logits");
    timeline_.finish(context, "Computing logits");
  });
  return result;
}

AllocatedRows CudaSession::allocate_rows(const std::string& shard, TensorRole projection, AllocationInput input,
                                         const AllocationOptions& options, CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  DeviceMatrix& weight = block.matrix(projection);
  input.rows = weight.rows;
  input.columns = weight.columns;
  return guarded([&] {
    block.ready().hold(stream_);
    // Scores come from the checkpoint's own values.
    const WidenedMatrix widened(weight, memory_, stream_);
    return gpu::allocate_rows(input, widened.values(), options, memory_, pool_, stream_, timeline_, context);
  });
}

OutlierCount CudaSession::count_outliers(const std::string& shard, std::span<const ProjectionInputSquares> projections, double threshold,
                                         CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  return guarded([&] {
    block.ready().hold(stream_);
    return gpu::count_outliers(block, projections, threshold, memory_, stream_, timeline_, context);
  });
}

std::vector<BlockSensitivity> CudaSession::measure_sensitivity(const std::string& shard, std::span<const std::uint32_t> groups,
                                                               std::span<const ProjectionInputSquares> projections, double sparsity,
                                                               CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  return guarded([&] {
    block.ready().hold(stream_);
    const auto find_group = [this](std::uint32_t group) { return groups_.find(group); };
    return gpu::measure_sensitivity(blocks_, block, groups, find_group, projections, sparsity, compute_, architecture_, memory_, stream_,
                                    timeline_, context);
  });
}

std::vector<double> CudaSession::eigenvalues(const std::string& shard, TensorRole projection, CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  const DeviceMatrix& weight = block.matrix(projection);
  return guarded([&] {
    block.ready().hold(stream_);
    const WidenedMatrix widened(weight, memory_, stream_);
    return eigenvalues_on_host(weight.rows, weight.columns, widened.values(), pool_, stream_, context);
  });
}

void CudaSession::apply_mask(const std::string& shard, TensorRole projection, std::span<const std::uint8_t> mask, CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  DeviceMatrix& weight = block.matrix(projection);
  check_mask(projection, weight.rows, weight.columns, mask.size());
  DeviceBuffer<std::uint8_t> bits(memory_, mask.size(), "a mask");
  guarded([&] {
    context.check();
    block.ready().hold(stream_);
    if (dense_groups_) block.keep_dense(projection, memory_, stream_);
    timeline_.begin("mask", 0, static_cast<double>(mask.size() * 33));
    upload(mask, bits.data(), stream_, "uploading a mask");
    if (!weight.values.empty()) {
      check(gpu::apply_mask(weight.values.data(), bits.data(), weight.rows, weight.columns, stream_.get()), "applying a mask");
    }
    if (!weight.narrowed.empty()) {
      check(gpu::apply_mask(weight.narrowed.data(), bits.data(), weight.rows, weight.columns, stream_.get()), "applying a mask");
    }
    timeline_.finish(context, "Applying a mask");
  });
}

void CudaSession::release_group(std::uint32_t group) {
  groups_.erase(group);
  if (dense_groups_) dense_groups_->erase(group);
}

std::vector<SiteStatistics> CudaSession::collect_with_gram(const std::string& shard, std::uint32_t group, InputSites sites,
                                                           GramSites wanted, std::size_t sketches, CallContext& context) {
  check_sites(sites);
  check_sketches(sketches);
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  const DeviceGroup states = groups_.find(group);
  float* const dense = dense_groups_ ? dense_groups_->find(group).hidden : nullptr;
  const GramTargets targets = grams_.targets(shard, block.end(), group, sites, wanted, dense != nullptr);
  try {
    std::vector<SiteStatistics> statistics =
        guarded([&] { return blocks_.collect(block, states, sites, sketches, targets, dense, context); });
    grams_.added(shard, group, targets);
    return statistics;
  } catch (...) {
    // Part of the group may have been added.
    grams_.forget(shard);
    throw;
  }
}

GramPart CudaSession::take_gram_sums(const std::string& shard, InputSite site) {
  find_shard(shard, ShardKind::kBlock);
  return grams_.take(shard, site);
}

std::vector<float> CudaSession::reduce_gram(std::size_t columns, std::size_t drift_rows,
                                            std::span<const std::span<const std::uint8_t>> sums, CallContext& context) {
  const ProductShape shape = drift_rows == 0 ? gram_shape(columns) : ProductShape{drift_rows, columns};
  cpu::ProductTotals total(host_memory_, shape, "a Gram matrix");
  for (const std::span<const std::uint8_t> part : sums) total.add(part, pool_, context);
  std::vector<float> matrix(shape.rows * shape.columns);
  total.round_to(matrix.data(), pool_, context);
  return matrix;
}

RepairedRows CudaSession::repair_rows(const std::string& shard, TensorRole projection, RepairInput input, const RepairOptions& options,
                                      CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  const DeviceMatrix& weight = block.matrix(projection);
  input.rows = weight.rows;
  input.columns = weight.columns;
  require_valid_repair(input, options);
  return guarded([&] {
    block.ready().hold(stream_);
    const WidenedMatrix widened(weight, memory_, stream_);
    DeviceRepair steps(input, widened.values(), {memory_, products_, stream_, timeline_, pool_, context});
    return repair_by_steps(input, options, steps);
  });
}

void CudaSession::replace_weights(const std::string& shard, TensorRole projection, ElementType stored, std::span<const std::uint8_t> bytes,
                                  CallContext& context) {
  DeviceShard& block = find_shard(shard, ShardKind::kBlock);
  const DeviceMatrix& weight = block.matrix(projection);
  const std::size_t size = weight.rows * weight.columns;
  if (bytes.size() != size * bytes_of(stored)) {
    throw Error(ErrorCode::kInvalidArgument, "The values of " + std::string(secateur::name_of(projection)) + " take " +
                                                 std::to_string(size * bytes_of(stored)) + " bytes, not " + std::to_string(bytes.size()) +
                                                 ".");
  }
  guarded([&] {
    context.check();
    block.ready().hold(stream_);
    if (dense_groups_) block.keep_dense(projection, memory_, stream_);
    timeline_.begin("convert", 0, static_cast<double>(bytes.size() + size * sizeof(float)));
    block.replace(projection, stored, bytes, memory_, stream_);
    timeline_.finish(context, "Replacing weights");
  });
}

std::vector<std::uint8_t> CudaSession::save_hidden_states(std::uint32_t group, CallContext& context) {
  const std::size_t bytes = groups_.kept_bytes(group);
  std::vector<std::uint8_t> saved(dense_groups_ ? 2 * bytes : bytes);
  return guarded([&] {
    context.check();
    timeline_.begin("copy", 0, static_cast<double>(saved.size()));
    groups_.save(group, saved.data());
    if (dense_groups_) dense_groups_->save(group, saved.data() + bytes);
    timeline_.finish(context, "Saving hidden states");
    return std::move(saved);
  });
}

void CudaSession::restore_hidden_states(GroupTokens tokens, std::span<const std::uint8_t> saved, CallContext& context) {
  check_tokens(tokens, architecture_);
  const std::size_t bytes = groups_.kept_bytes(tokens);
  check_saved_bytes(tokens.index, saved.size(), dense_groups_ ? 2 * bytes : bytes);
  const std::uint32_t index = tokens.index;
  try {
    guarded([&] {
      context.check();
      timeline_.begin("copy", 0, static_cast<double>(saved.size()));
      if (dense_groups_) dense_groups_->restore(tokens, saved.data() + bytes);
      groups_.restore(std::move(tokens), saved.data());
      timeline_.finish(context, "Restoring hidden states");
    });
  } catch (...) {
    release_group(index);
    throw;
  }
}

DeviceShard& CudaSession::find_shard(const std::string& name, ShardKind kind) {
  const auto found = shards_.find(name);
  if (found == shards_.end()) throw Error(ErrorCode::kFailedPrecondition, "No shard " + name + " is loaded.");
  if (found->second->kind() != kind) {
    throw Error(ErrorCode::kFailedPrecondition,
                "Shard " + name + " is " + secateur::name_of(found->second->kind()) + ", not " + secateur::name_of(kind) + ".");
  }
  found->second->settle();
  return *found->second;
}

}  // namespace secateur::gpu
