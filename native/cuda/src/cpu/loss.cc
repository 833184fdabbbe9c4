#include "cpu/loss.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "cpu/normalization.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

// Logits in memory at a time, per thread: bounded for any vocabulary, and enough for the product to run at full speed.
constexpr std::size_t kTokenTile = 256;

// log(e^x + e^y)
double add_logarithms(double x, double y) { return std::max(x, y) + std::log1p(std::exp(-std::abs(x - y))); }

// Sizes of what measuring the loss of a group needs.
struct LossSizes {
  std::size_t tile_tokens;
  // Per thread: floats for the input and the logits of a tile, bytes for the copies that products read.
  std::size_t input;
  std::size_t scratch;
  std::size_t copies;

  // `predictions`: tokens that are measured of the sample that has the most.
  LossSizes(const Architecture& architecture, std::span<const ProjectionForm> head, std::size_t predictions)
      : tile_tokens(std::min(kTokenTile, predictions)),
        input(tile_tokens * (architecture.hidden_size + architecture.embedding_size)),
        scratch(input + tile_tokens * head.front().part_rows),
        copies(ProjectionWorkspace::bytes(head, tile_tokens)) {}
};

// Tokens of one sample that are computed together.
struct LossTile {
  std::size_t sample;
  // Of the first token that is measured.
  std::size_t position;
  std::size_t count;
  // Place of that token among all that are measured.
  std::size_t place;
};

std::vector<LossTile> cut_into_tiles(std::span<const TokenRange> ranges) {
  std::vector<LossTile> tiles;
  std::size_t place = 0;
  for (std::size_t sample = 0; sample < ranges.size(); ++sample) {
    const auto [first, end] = ranges[sample];
    for (std::size_t position = first; position < end; position += kTokenTile) {
      const std::size_t count = std::min(kTokenTile, end - position);
      tiles.push_back({sample, position, count, place});
      place += count;
    }
  }
  return tiles;
}

}  // namespace

std::vector<ProjectionForm> head_forms(const Architecture& architecture, const Shard& head) {
  std::vector<ProjectionForm> forms = {head.projection(TensorRole::kHeadWeight).form()};
  if (architecture.embedding_size > 0) forms.push_back(head.projection(TensorRole::kHeadProjectionWeight).form());
  return forms;
}

const float* make_head_input(const Architecture& architecture, const Shard& head, const float* hidden, std::size_t tokens,
                             const ProjectionWorkspace& workspace, float* scratch, CallContext& context) {
  const float* states = hidden;
  if (architecture.final_normalization) {
    normalize(architecture, states, head.find(TensorRole::kFinalNormWeight), head.find(TensorRole::kFinalNormBias), tokens, scratch);
    states = scratch;
  }
  if (architecture.embedding_size == 0) return states;
  const Projection& projection = head.projection(TensorRole::kHeadProjectionWeight);
  float* const projected = scratch + tokens * architecture.hidden_size;
  projection.multiply(workspace.prepare(states, tokens, architecture.hidden_size, {&projection}), nullptr, workspace, projected, context);
  return projected;
}

std::uint64_t loss_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> head, std::size_t samples,
                              std::size_t sequence_length, std::size_t threads) {
  // The first token is predicted by nothing.
  const std::size_t predictions = sequence_length - 1;
  const LossSizes sizes(architecture, head, predictions);
  return threads * (sizes.scratch * sizeof(float) + sizes.copies) + samples * predictions * (sizeof(double) + sizeof(float));
}

std::vector<double> measure_loss(const Architecture& architecture, const Shard& head, const Group& group,
                                 std::span<const TokenRange> ranges, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  const std::size_t length = group.tokens.sequence_length;
  const std::size_t hidden = architecture.hidden_size;
  const std::size_t vocabulary = architecture.vocabulary_size;
  const Projection& weight = head.projection(TensorRole::kHeadWeight);
  const std::vector<ProjectionForm> forms = head_forms(architecture, head);
  std::size_t longest = 0;
  for (const auto& [first, end] : ranges) longest = std::max(longest, end - first);
  const LossSizes sizes(architecture, forms, longest);
  const std::size_t tile_tokens = sizes.tile_tokens;
  const std::vector<LossTile> tiles = cut_into_tiles(ranges);
  const std::size_t predictions = tiles.back().place + tiles.back().count;
  Buffer<float> scratch(budget, pool.size() * sizes.scratch, "logits");
  Buffer<std::uint8_t> copies(budget, pool.size() * sizes.copies, "logits");
  // Logarithms of the sums over the vocabulary so far, and the logits of the tokens that came.
  Buffer<double> totals(budget, predictions, "the loss of a group");
  Buffer<float> targets(budget, predictions, "the loss of a group");
  pool.parallel_for(tiles.size(), [&](std::size_t item, std::size_t worker) {
    const auto [sample, position, count, place] = tiles[item];
    float* states = scratch.data() + worker * sizes.scratch;
    float* logits = states + sizes.input;
    double* total = totals.data() + place;
    float* target = targets.data() + place;
    const std::int32_t* next = group.tokens.ids.data() + sample * length + position;
    const double products = static_cast<double>(count) * static_cast<double>(vocabulary);
    const ProjectionWorkspace workspace(copies.data() + worker * sizes.copies, forms, tile_tokens);
    // A token is predicted from the one before it.
    const float* const before = group.hidden.read((sample * length + position - 1) * hidden, count * hidden, states);
    const float* const head_input = make_head_input(architecture, head, before, count, workspace, states, context);
    const std::size_t width = architecture.token_width();
    const PhaseScope scope(context, "loss", 2.0 * products * static_cast<double>(width), sizeof(float) * products);
    const ProjectionInput input = workspace.prepare(head_input, count, width, {&weight});
    for (std::size_t first = 0; first < vocabulary; first += weight.part_rows()) {
      context.check();
      const std::size_t words = std::min(weight.part_rows(), vocabulary - first);
      weight.multiply_part(input, first, words, logits);
      for (std::size_t token = 0; token < count; ++token) {
        const float* row = logits + token * words;
        const double sum = vector_math().log_sum_exp(row, words);
        total[token] = first == 0 ? sum : add_logarithms(total[token], sum);
        const auto word = static_cast<std::size_t>(next[token]);
        if (word >= first && word < first + words) target[token] = row[word - first];
      }
    }
  });
  std::vector<double> losses(ranges.size());
  std::size_t place = 0;
  for (std::size_t sample = 0; sample < ranges.size(); ++sample) {
    const std::size_t count = ranges[sample].end - ranges[sample].first;
    double sum = 0;
    for (const std::size_t end = place + count; place < end; ++place) sum += totals[place] - static_cast<double>(targets[place]);
    losses[sample] = sum / static_cast<double>(count);
    if (!std::isfinite(losses[sample])) {
      throw Error(ErrorCode::kNonFinite,
                  "The loss of sample " + std::to_string(sample) + " of group " + std::to_string(group.tokens.index) + " is not finite.");
    }
  }
  return losses;
}

}  // namespace secateur::cpu
