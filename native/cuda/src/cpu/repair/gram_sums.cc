#include "cpu/repair/gram_sums.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/gemm.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kTile = 256;

std::size_t tiles_of(std::size_t columns) { return (columns + kTile - 1) / kTile; }
// Tiles of the upper triangle.
std::size_t items_of(std::size_t columns) { return tiles_of(columns) * (tiles_of(columns) + 1) / 2; }

// A tile of the upper triangle.
struct Tile {
  std::size_t first_row;
  std::size_t rows;
  std::size_t first_column;
  std::size_t columns;
  // Where its sums begin.
  std::size_t offset;

  std::size_t size() const { return rows * columns; }
};

// The tiles go row by row.
Tile tile_at(std::size_t item, std::size_t columns) {
  const std::size_t tiles = tiles_of(columns);
  std::size_t row = 0;
  while (item >= tiles - row) item -= tiles - row++;
  const auto size_at = [&](std::size_t tile) { return std::min(kTile, columns - tile * kTile); };
  // Rows of tiles above have full height.
  std::size_t offset = 0;
  for (std::size_t above = 0; above < row; ++above) offset += 2 * kTile * (columns - above * kTile);
  offset += 2 * size_at(row) * item * kTile;
  const std::size_t column = row + item;
  return {row * kTile, size_at(row), column * kTile, size_at(column), offset};
}

std::size_t sums_of(std::size_t columns) {
  if (columns == 0) return 0;
  const Tile last = tile_at(items_of(columns) - 1, columns);
  return last.offset + 2 * last.size();
}

// high + low += value, exactly but for the rounding of low.
inline void add_to(double& high, double& low, double value) {
  const double sum = high + value;
  const double moved = sum - high;
  low += (high - (sum - moved)) + (value - moved);
  high = sum;
}

}  // namespace

GramSums::GramSums(MemoryBudget& budget, std::size_t columns, std::size_t threads, const std::string& purpose)
    : columns_(columns), sums_(budget, sums_of(columns), purpose), products_(budget, threads * kTile * kTile, purpose) {
  std::ranges::fill(sums_.span(), 0.0);
}

std::uint64_t GramSums::bytes(std::size_t columns, std::size_t threads) {
  return content_bytes(columns) + threads * kTile * kTile * sizeof(float);
}

std::uint64_t GramSums::content_bytes(std::size_t columns) { return sums_of(columns) * sizeof(double); }

void GramSums::add(const float* inputs, std::size_t samples, std::size_t tokens, ThreadPool& pool, CallContext& context) {
  pool.parallel_for(items_of(columns_), [&](std::size_t item, std::size_t worker) {
    const Tile tile = tile_at(item, columns_);
    const PhaseScope scope(context, "gram", 2 * static_cast<double>(samples * tokens * tile.size()),
                           static_cast<double>(samples * (sizeof(float) * tokens * (tile.rows + tile.columns) + 32 * tile.size())));
    float* const products = products_.data() + worker * kTile * kTile;
    double* const high = sums_.data() + tile.offset;
    double* const low = high + tile.size();
    for (std::size_t sample = 0; sample < samples; ++sample) {
      context.check();
      const float* const x = inputs + sample * tokens * columns_;
      multiply_left_transposed(tile.rows, tile.columns, tokens, 1.0F, x + tile.first_row, columns_, x + tile.first_column, columns_,
                               products, tile.columns);
      for (std::size_t i = 0; i < tile.size(); ++i) add_to(high[i], low[i], static_cast<double>(products[i]));
    }
  });
}

std::span<const std::uint8_t> GramSums::content() const noexcept {
  return {reinterpret_cast<const std::uint8_t*>(sums_.data()), sums_.size() * sizeof(double)};
}

void GramSums::add(std::span<const std::uint8_t> content, ThreadPool& pool, CallContext& context) {
  if (content.size() != sums_.size() * sizeof(double)) {
    throw Error(ErrorCode::kInvalidArgument, "Sums of a Gram matrix of " + std::to_string(columns_) + " columns take " +
                                                 std::to_string(sums_.size() * sizeof(double)) + " bytes; " +
                                                 std::to_string(content.size()) + " came.");
  }
  pool.parallel_for(items_of(columns_), [&](std::size_t item, std::size_t) {
    context.check();
    const Tile tile = tile_at(item, columns_);
    const PhaseScope scope(context, "gram", 12 * static_cast<double>(tile.size()), 48 * static_cast<double>(tile.size()));
    double* const high = sums_.data() + tile.offset;
    double* const low = high + tile.size();
    const std::uint8_t* const other = content.data() + tile.offset * sizeof(double);
    for (std::size_t i = 0; i < tile.size(); ++i) {
      double parts[2];
      std::memcpy(&parts[0], other + i * sizeof(double), sizeof(double));
      std::memcpy(&parts[1], other + (tile.size() + i) * sizeof(double), sizeof(double));
      add_to(high[i], low[i], parts[0]);
      low[i] += parts[1];
    }
  });
}

void GramSums::round_to(float* matrix, ThreadPool& pool, CallContext& context) const {
  pool.parallel_for(items_of(columns_), [&](std::size_t item, std::size_t) {
    context.check();
    const Tile tile = tile_at(item, columns_);
    const PhaseScope scope(context, "gram", static_cast<double>(tile.size()), 24 * static_cast<double>(tile.size()));
    const double* const high = sums_.data() + tile.offset;
    const double* const low = high + tile.size();
    for (std::size_t i = 0; i < tile.rows; ++i) {
      const std::size_t row = tile.first_row + i;
      for (std::size_t j = 0; j < tile.columns; ++j) {
        const std::size_t column = tile.first_column + j;
        const auto sum = static_cast<float>(high[i * tile.columns + j] + low[i * tile.columns + j]);
        if (!std::isfinite(sum)) {
          throw Error(ErrorCode::kNonFinite, "The Gram matrix has NaN or infinity for the input columns " + std::to_string(row) + " and " +
                                                 std::to_string(column) + ".");
        }
        matrix[row * columns_ + column] = sum;
        matrix[column * columns_ + row] = sum;
      }
    }
  });
}

}  // namespace secateur::cpu
