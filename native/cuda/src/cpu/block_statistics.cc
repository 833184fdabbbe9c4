#include "cpu/block_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "common/sketch_signs.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

// 1 or -1 for tokens from a position on, which begins a word of signs.
void fill_signs(const SketchPlace& place, std::size_t first, std::span<float> signs) {
  for (std::size_t token = 0; token < signs.size(); token += kSignsTogether) {
    const std::uint64_t negative = sketch_signs(place, (first + token) / kSignsTogether);
    for (std::size_t i = token; i < std::min(token + kSignsTogether, signs.size()); ++i) {
      signs[i] = (negative >> (i - token) & 1U) != 0 ? -1.0F : 1.0F;
    }
  }
}

}  // namespace

BlockStatistics::BlockStatistics(const BlockTask& task, const WorkSizes& sizes, const WorkSpace& work)
    : task_(task), sizes_(sizes), work_(work) {
  for (std::size_t site = 0; site < kInputSites; ++site) {
    if (!task.collects(static_cast<InputSite>(site))) continue;
    const std::size_t width = sizes.widths[site];
    const std::size_t values = sizes.samples * std::max<std::size_t>(1, task.sketches) * width;
    statistics_.push_back({static_cast<InputSite>(site), std::vector<double>(width), std::vector<float>(values)});
    quality_inputs_[site] = statistics_.back().quality_inputs.data();
  }
}

void BlockStatistics::observe(InputSite site, const TokenTile& tile, const float* x, const float* added_to) {
  const auto index = static_cast<std::size_t>(site);
  if (task_.collects(site)) collect(index, tile, x);
  if (task_.drift[index] != nullptr) follow_drift(index, tile, x, added_to);
}

double* BlockStatistics::tile_sums(std::size_t site, const TokenTile& tile) const {
  return work_.tile_sums[site] + (tile.sample * sizes_.tiles + tile.index) * sizes_.widths[site];
}

void BlockStatistics::collect(std::size_t site, const TokenTile& tile, const float* x) {
  const std::size_t width = sizes_.widths[site];
  const std::size_t sketches = task_.sketches;
  const auto values = static_cast<double>(tile.count * width);
  const PhaseScope scope(task_.context, "statistics", 2 * values * static_cast<double>(1 + sketches), sizeof(float) * values);
  double* const sums = tile_sums(site, tile);
  std::fill_n(sums, width, 0.0);
  for (std::size_t token = 0; token < tile.count; ++token) vector_math().add_squares(x + token * width, width, sums);
  if (sketches > 0) {
    float signs[kMostSketches * kTokenTile];
    for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
      fill_signs({.group = task_.group.tokens.index, .sample = tile.sample, .sketch = sketch}, tile.position,
                 {signs + sketch * tile.count, tile.count});
    }
    float* const part = work_.tile_sketches[site] + (tile.sample * sizes_.tiles + tile.index) * sketches * width;
    std::fill_n(part, sketches * width, 0.0F);
    vector_math().add_signed(x, tile.count, width, signs, sketches, part);
  } else if (tile.index + 1 == sizes_.tiles) {
    std::memcpy(quality_inputs_[site] + tile.sample * width, x + (tile.count - 1) * width, width * sizeof(float));
  }
  if (float* const inputs = work_.gram_inputs[site]; inputs != nullptr) std::copy_n(x, tile.count * width, inputs + tile.first * width);
}

void BlockStatistics::follow_drift(std::size_t site, const TokenTile& tile, const float* x, const float* added_to) const {
  const std::size_t width = sizes_.widths[site];
  const std::size_t hidden = sizes_.widths[static_cast<std::size_t>(InputSite::kAttentionInput)];
  const std::size_t rows = width + (added_to == nullptr ? 0 : hidden);
  const auto put = [&](const float* values, std::size_t size, float* place) {
    for (std::size_t i = 0; i < size; ++i) place[i] = task_.dense ? values[i] : place[i] - values[i];
  };
  for (std::size_t token = 0; token < tile.count; ++token) {
    float* const place = task_.drift[site] + (tile.first + token) * rows;
    put(x + token * width, width, place);
    if (added_to != nullptr) put(added_to + token * hidden, hidden, place + width);
  }
}

std::vector<SiteStatistics> BlockStatistics::add_up(ThreadPool& pool) && {
  if (statistics_.empty()) return {};
  const PhaseScope scope(task_.context, "statistics");
  for (SiteStatistics& statistics : statistics_) {
    const auto site = static_cast<std::size_t>(statistics.site);
    if (task_.sketches > 0) add_sketches(site, statistics.quality_inputs);
    add_squares(site, statistics.sums_of_squares);
    add_products(site, pool);
  }
  return std::move(statistics_);
}

void BlockStatistics::add_sketches(std::size_t site, std::vector<float>& result) const {
  // Tiles and samples: [sketches, width].
  const std::size_t values = task_.sketches * sizes_.widths[site];
  const double scale = 1 / std::sqrt(static_cast<double>(task_.length()));
  for (std::size_t sample = 0; sample < sizes_.samples; ++sample) {
    const float* const of_sample = work_.tile_sketches[site] + sample * sizes_.tiles * values;
    for (std::size_t i = 0; i < values; ++i) {
      double sum = 0;
      for (std::size_t tile = 0; tile < sizes_.tiles; ++tile) sum += static_cast<double>(of_sample[tile * values + i]);
      result[sample * values + i] = static_cast<float>(sum * scale);
    }
  }
}

void BlockStatistics::add_squares(std::size_t site, std::vector<double>& sums) const {
  const std::size_t width = sizes_.widths[site];
  for (std::size_t part = 0; part < sizes_.samples * sizes_.tiles; ++part) {
    const double* const partial = work_.tile_sums[site] + part * width;
    for (std::size_t column = 0; column < width; ++column) sums[column] += partial[column];
  }
  if (std::ranges::all_of(sums, [](double sum) { return std::isfinite(sum); })) return;
  throw Error(ErrorCode::kNonFinite, "The " + std::string(name_of(static_cast<InputSite>(site))) + " has NaN or infinity in group " +
                                         std::to_string(task_.group.tokens.index) + ".");
}

void BlockStatistics::add_products(std::size_t site, ThreadPool& pool) const {
  const GramTarget& gram = task_.grams[site];
  if (gram.sums == nullptr) return;
  const std::size_t length = task_.length();
  for (std::size_t sample = 0; sample < sizes_.samples; ++sample) {
    const float* const inputs = work_.gram_inputs[site] + sample * length * sizes_.widths[site];
    (is_held_out(sample) ? gram.held_out : gram.sums)->add(inputs, inputs, 1, length, pool, task_.context);
  }
  if (gram.drift != nullptr) gram.drift->add(task_.drift[site], work_.gram_inputs[site], sizes_.samples, length, pool, task_.context);
}

}  // namespace secateur::cpu
