#include "cpu/repair/product_sums.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/gemm.h"
#include "secateur/error.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kTile = 256;

std::size_t tiles_of(std::size_t size) { return (size + kTile - 1) / kTile; }

// Of a symmetric matrix, those of the upper triangle.
std::size_t items_of(const ProductShape& shape) {
  const std::size_t tiles = tiles_of(shape.columns);
  return shape.symmetric ? tiles * (tiles + 1) / 2 : tiles_of(shape.rows) * tiles;
}

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
Tile tile_at(std::size_t item, const ProductShape& shape) {
  const std::size_t tiles = tiles_of(shape.columns);
  // Of a row of tiles, the first that is kept.
  const auto first_tile = [&](std::size_t row) { return shape.symmetric ? row : 0; };
  std::size_t row = 0;
  std::size_t offset = 0;
  // Rows of tiles above have full height.
  while (item >= tiles - first_tile(row)) {
    item -= tiles - first_tile(row);
    offset += 2 * kTile * (shape.columns - first_tile(row) * kTile);
    ++row;
  }
  const std::size_t column = first_tile(row) + item;
  const std::size_t rows = std::min(kTile, shape.rows - row * kTile);
  offset += 2 * rows * item * kTile;
  return {row * kTile, rows, column * kTile, std::min(kTile, shape.columns - column * kTile), offset};
}

std::size_t sums_of(const ProductShape& shape) {
  if (shape.rows == 0 || shape.columns == 0) return 0;
  const Tile last = tile_at(items_of(shape) - 1, shape);
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

ProductSums::ProductSums(MemoryBudget& budget, ProductShape shape, std::size_t threads, const std::string& purpose)
    : shape_(shape), sums_(budget, sums_of(shape), purpose), products_(budget, threads * kTile * kTile, purpose) {
  std::ranges::fill(sums_.span(), 0.0);
}

std::uint64_t ProductSums::bytes(ProductShape shape, std::size_t threads) {
  return content_bytes(shape) + threads * kTile * kTile * sizeof(float);
}

std::uint64_t ProductSums::content_bytes(ProductShape shape) { return sums_of(shape) * sizeof(double); }

void ProductSums::add(const float* left, const float* right, std::size_t samples, std::size_t tokens, ThreadPool& pool,
                      CallContext& context) {
  pool.parallel_for(items_of(shape_), [&](std::size_t item, std::size_t worker) {
    const Tile tile = tile_at(item, shape_);
    const PhaseScope scope(context, "gram", 2 * static_cast<double>(samples * tokens * tile.size()),
                           static_cast<double>(samples * (sizeof(float) * tokens * (tile.rows + tile.columns) + 32 * tile.size())));
    float* const products = products_.data() + worker * kTile * kTile;
    double* const high = sums_.data() + tile.offset;
    double* const low = high + tile.size();
    for (std::size_t sample = 0; sample < samples; ++sample) {
      context.check();
      const float* const y = left + sample * tokens * shape_.rows + tile.first_row;
      const float* const x = right + sample * tokens * shape_.columns + tile.first_column;
      multiply_left_transposed(tile.rows, tile.columns, tokens, 1.0F, y, shape_.rows, x, shape_.columns, products, tile.columns);
      for (std::size_t i = 0; i < tile.size(); ++i) add_to(high[i], low[i], static_cast<double>(products[i]));
    }
  });
}

std::span<const std::uint8_t> ProductSums::content() const noexcept {
  return {reinterpret_cast<const std::uint8_t*>(sums_.data()), sums_.size() * sizeof(double)};
}

void ProductSums::add(std::span<const std::uint8_t> content, ThreadPool& pool, CallContext& context) {
  if (content.size() != sums_.size() * sizeof(double)) {
    throw Error(ErrorCode::kInvalidArgument, "Sums of a matrix [" + std::to_string(shape_.rows) + ", " + std::to_string(shape_.columns) +
                                                 "] take " + std::to_string(sums_.size() * sizeof(double)) + " bytes; " +
                                                 std::to_string(content.size()) + " came.");
  }
  pool.parallel_for(items_of(shape_), [&](std::size_t item, std::size_t) {
    context.check();
    const Tile tile = tile_at(item, shape_);
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

void ProductSums::round_to(float* matrix, ThreadPool& pool, CallContext& context) const {
  pool.parallel_for(items_of(shape_), [&](std::size_t item, std::size_t) {
    context.check();
    const Tile tile = tile_at(item, shape_);
    const PhaseScope scope(context, "gram", static_cast<double>(tile.size()), 24 * static_cast<double>(tile.size()));
    const double* const high = sums_.data() + tile.offset;
    const double* const low = high + tile.size();
    for (std::size_t i = 0; i < tile.rows; ++i) {
      const std::size_t row = tile.first_row + i;
      for (std::size_t j = 0; j < tile.columns; ++j) {
        const std::size_t column = tile.first_column + j;
        const auto sum = static_cast<float>(high[i * tile.columns + j] + low[i * tile.columns + j]);
        if (!std::isfinite(sum)) {
          const std::string place = std::to_string(row) + " and column " + std::to_string(column) + ".";
          throw Error(ErrorCode::kNonFinite, "Products of the inputs add up to NaN or infinity in row " + place);
        }
        matrix[row * shape_.columns + column] = sum;
        if (shape_.symmetric) matrix[column * shape_.columns + row] = sum;
      }
    }
  });
}

}  // namespace secateur::cpu
