#include "cpu/block_pass.h"

#include <algorithm>
#include <string>
#include <utility>

#include "cpu/attention.h"
#include "cpu/normalization.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

double as_double(std::size_t value) { return static_cast<double>(value); }

}  // namespace

BlockProjections::BlockProjections(const BlockTask& task, const Architecture& architecture)
    : query(task.projection(TensorRole::kQueryWeight)),
      key(task.projection(TensorRole::kKeyWeight)),
      value(task.projection(TensorRole::kValueWeight)),
      output(task.projection(TensorRole::kOutputWeight)),
      gate(task.projection(architecture.feed_forward == FeedForward::kGatedSilu ? TensorRole::kGateWeight : TensorRole::kUpWeight)),
      up(task.projection(TensorRole::kUpWeight)),
      down(task.projection(TensorRole::kDownWeight)) {}

std::array<ProjectionForm, 7> BlockProjections::forms() const {
  return {query.form(), key.form(), value.form(), output.form(), gate.form(), up.form(), down.form()};
}

BlockPass::BlockPass(const BlockTask& task, const Architecture& architecture, const BlockProjections& projections, const WorkSizes& sizes,
                     const WorkSpace& work, const RotaryTables& tables, ThreadPool& pool)
    : task_(task),
      architecture_(architecture),
      projections_(projections),
      sizes_(sizes),
      work_(work),
      tables_(tables),
      pool_(pool),
      statistics_(task, sizes, work),
      attended_(task.progress == nullptr ? work.attended : task.progress->values.data()) {}

std::vector<SiteStatistics> BlockPass::run() && {
  const BlockProgress::Place begin = task_.begin();
  // Until the run is over what is kept may be of two places.
  if (keeps_progress()) task_.progress->place = BlockProgress::Place::kStart;
  if (begin == BlockProgress::Place::kStart) {
    for_tiles([&](const TokenTile& tile, std::size_t worker) { project(tile, worker); });
    if (!task_.ends_at(InputSite::kAttentionInput)) {
      const std::size_t heads = architecture_.attention_heads;
      pool_.parallel_for(sizes_.samples * heads,
                         [&](std::size_t item, std::size_t worker) { attend_head(item / heads, item % heads, worker); });
    }
  }
  if (!task_.ends_at(InputSite::kAttentionInput)) {
    for_tiles([&](const TokenTile& tile, std::size_t worker) {
      const float* const halfway = begin == BlockProgress::Place::kHalfway
                                       ? task_.progress->values.data() + tile.first * architecture_.hidden_size
                                       : mix(tile, worker);
      if (halfway != nullptr) feed_forward(tile, halfway, worker);
    });
  }
  std::vector<SiteStatistics> statistics = std::move(statistics_).add_up(pool_);
  if (keeps_progress()) {
    task_.progress->block = &task_.block;
    task_.progress->place = task_.end();
  }
  return statistics;
}

template <class Visit>
void BlockPass::for_tiles(const Visit& visit) {
  pool_.parallel_for(sizes_.samples * sizes_.tiles, [&](std::size_t item, std::size_t worker) {
    task_.context.check();
    const std::size_t sample = item / sizes_.tiles;
    const std::size_t index = item % sizes_.tiles;
    const std::size_t position = index * kTokenTile;
    visit(TokenTile{.sample = sample,
                    .index = index,
                    .position = position,
                    .first = sample * task_.length() + position,
                    .count = std::min(kTokenTile, task_.length() - position)},
          worker);
  });
}

void BlockPass::project(const TokenTile& tile, std::size_t worker) {
  const std::size_t hidden = architecture_.hidden_size;
  const std::size_t query_width = architecture_.query_width();
  const std::size_t key_width = architecture_.key_width();
  const auto& [query, key, value, output, gate, up, down] = projections_;
  float* const normed = scratch_of(worker);
  const float* x = task_.states().read(tile.first * hidden, tile.count * hidden, normed);
  if (!architecture_.post_normalization) {
    normalize_tile(x, TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, tile.count, normed);
    x = normed;
  }
  statistics_.observe(InputSite::kAttentionInput, tile, x, nullptr);
  if (task_.ends_at(InputSite::kAttentionInput)) return;
  float* const q = work_.queries + tile.first * query_width;
  float* const k = work_.keys + tile.first * key_width;
  const ProjectionWorkspace workspace = workspace_of(worker);
  const ProjectionInput input = workspace.prepare(x, tile.count, hidden, {&query, &key, &value});
  query.multiply(input, task_.block.find(TensorRole::kQueryBias), workspace, q, task_.context);
  key.multiply(input, task_.block.find(TensorRole::kKeyBias), workspace, k, task_.context);
  value.multiply(input, task_.block.find(TensorRole::kValueBias), workspace, work_.values + tile.first * key_width, task_.context);
  normalize_heads(q, tile.count * architecture_.attention_heads, TensorRole::kQueryNormWeight);
  normalize_heads(k, tile.count * architecture_.key_value_heads, TensorRole::kKeyNormWeight);
  if (architecture_.position_encoding != PositionEncoding::kRotary) return;
  const PhaseScope scope(task_.context, "attention", 3 * as_double(tile.count * (query_width + key_width)), 0);
  rotate(tile, q, architecture_.attention_heads);
  rotate(tile, k, architecture_.key_value_heads);
}

void BlockPass::rotate(const TokenTile& tile, float* states, std::size_t heads) {
  const std::size_t size = architecture_.head_dimension;
  for (std::size_t token = 0; token < tile.count; ++token) {
    const std::size_t angles = (tile.position + token) * (size / 2);
    for (float* const end = states + heads * size; states != end; states += size) {
      vector_math().rotate(states, tables_.cosines + angles, tables_.sines + angles, size);
    }
  }
}

void BlockPass::attend_head(std::size_t sample, std::size_t head, std::size_t worker) {
  task_.context.check();
  const std::size_t size = architecture_.head_dimension;
  const std::size_t query_width = architecture_.query_width();
  const std::size_t key_width = architecture_.key_width();
  const std::size_t length = task_.length();
  const std::size_t heads_per_key = architecture_.attention_heads / architecture_.key_value_heads;
  const std::size_t window = task_.block.attention_window() == 0 ? length : std::min(length, task_.block.attention_window());
  const std::size_t key_offset = sample * length * key_width + head / heads_per_key * size;
  const std::size_t query_offset = sample * length * query_width + head * size;
  const PhaseScope scope(task_.context, "attention", attention_flops(length, size, window), sizeof(float) * as_double(4 * length * size));
  attend({work_.queries + query_offset, query_width, work_.keys + key_offset, work_.values + key_offset, key_width,
          attended_ + query_offset, query_width, size, window},
         length, projections_.query.form().bf16, sizes_.attention, scratch_of(worker));
}

const float* BlockPass::mix(const TokenTile& tile, std::size_t worker) {
  const std::size_t hidden = architecture_.hidden_size;
  const std::size_t query_width = architecture_.query_width();
  const std::size_t size = tile.count * hidden;
  float* const residual = scratch_of(worker);
  const float* const attended = attended_ + tile.first * query_width;
  const float* const entered = task_.states().read(tile.first * hidden, size, residual + sizes_.tile_tokens * hidden);
  statistics_.observe(InputSite::kAttentionOutput, tile, attended, entered);
  if (task_.ends_at(InputSite::kAttentionOutput)) return nullptr;
  const ProjectionWorkspace workspace = workspace_of(worker);
  const Projection& output = projections_.output;
  output.multiply(workspace.prepare(attended, tile.count, query_width, {&output}), task_.block.find(TensorRole::kOutputBias), workspace,
                  residual, task_.context);
  vector_math().add(residual, entered, size);
  if (keeps_progress() && task_.end() == BlockProgress::Place::kHalfway) {
    std::copy_n(residual, size, task_.progress->values.data() + tile.first * hidden);
  }
  return residual;
}

void BlockPass::feed_forward(const TokenTile& tile, const float* halfway, std::size_t worker) {
  const std::size_t hidden = architecture_.hidden_size;
  const std::size_t intermediate = architecture_.intermediate_size;
  const std::size_t count = tile.count;
  const bool post = architecture_.post_normalization;
  float* const residual = scratch_of(worker);
  float* const normed = residual + sizes_.tile_tokens * hidden;
  float* const activated = normed + sizes_.tile_tokens * hidden;

  const ProjectionWorkspace workspace = workspace_of(worker);
  const auto& [query, key, value, output, gate, up, down] = projections_;
  normalize_tile(halfway, post ? TensorRole::kAttentionNormWeight : TensorRole::kFeedForwardNormWeight,
                 post ? TensorRole::kAttentionNormBias : TensorRole::kFeedForwardNormBias, count, normed);
  statistics_.observe(InputSite::kFeedForwardInput, tile, normed, nullptr);
  if (task_.ends_at(InputSite::kFeedForwardInput)) return;
  activate(normed, count, workspace, activated, activated + sizes_.tile_tokens * intermediate);
  // What the half began with is added: the normalised sum where normalisation comes after.
  const float* const half = post ? normed : halfway;
  statistics_.observe(InputSite::kFeedForwardHidden, tile, activated, half);
  if (task_.ends_at(InputSite::kFeedForwardHidden)) return;
  float* const result = post ? residual : normed;
  down.multiply(workspace.prepare(activated, count, intermediate, {&down}), task_.block.find(TensorRole::kDownBias), workspace, result,
                task_.context);
  vector_math().add(result, half, count * hidden);
  if (post) normalize_tile(result, TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, count, result);
  write(tile, result);
}

void BlockPass::activate(const float* x, std::size_t count, const ProjectionWorkspace& workspace, float* activated, float* raised) {
  const auto& [query, key, value, output, gate, up, down] = projections_;
  const std::size_t size = count * architecture_.intermediate_size;
  const ProjectionInput input = workspace.prepare(x, count, architecture_.hidden_size, {&gate, &up});
  up.multiply(input, task_.block.find(TensorRole::kUpBias), workspace, is_gated() ? raised : activated, task_.context);
  if (is_gated()) gate.multiply(input, task_.block.find(TensorRole::kGateBias), workspace, activated, task_.context);
  const PhaseScope scope(task_.context, "activation", 4 * as_double(size), 12 * as_double(size));
  if (is_gated()) {
    vector_math().silu_multiply(activated, raised, size);
  } else {
    vector_math().relu(activated, size);
  }
}

void BlockPass::write(const TokenTile& tile, const float* result) {
  const std::size_t size = tile.count * architecture_.hidden_size;
  if (!vector_math().all_finite(result, size)) {
    throw Error(ErrorCode::kNonFinite, "The block gives NaN or infinity for sample " + std::to_string(tile.sample) + " of group " +
                                           std::to_string(task_.group.tokens.index) + ".");
  }
  task_.output->write(tile.first * architecture_.hidden_size, size, result);
}

void BlockPass::normalize_tile(const float* x, TensorRole weight, TensorRole bias, std::size_t count, float* result) {
  const double values = as_double(count * architecture_.hidden_size);
  const PhaseScope scope(task_.context, "normalization", 4 * values, 8 * values);
  normalize(architecture_, x, task_.block.find(weight), task_.block.find(bias), count, result);
}

void BlockPass::normalize_heads(float* states, std::size_t heads, TensorRole role) {
  const float* const weight = task_.block.find(role);
  if (weight == nullptr) return;
  const std::size_t size = architecture_.head_dimension;
  const PhaseScope scope(task_.context, "normalization", 4 * as_double(heads * size), 8 * as_double(heads * size));
  for (float* head = states; head != states + heads * size; head += size) {
    vector_math().rms_norm(head, weight, size, architecture_.normalization_epsilon, head);
  }
}

ProjectionWorkspace BlockPass::workspace_of(std::size_t worker) const {
  return ProjectionWorkspace(work_.copies + worker * sizes_.copies, projections_.forms(), sizes_.tile_tokens);
}

}  // namespace secateur::cpu
