// How sums of products of token vectors lie in memory: the same on every device, so that parts from anywhere add up. For host code and
// CUDA kernels: C++17, with nothing of the library but what CUDA has.
#pragma once

#include <cstddef>

#include "cpu/allocation/host_device.h"

namespace secateur {

// Of Σ yxᵀ.
struct ProductShape {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // y is x: half of the matrix is summed up.
  bool symmetric = false;
};

constexpr ProductShape gram_shape(std::size_t columns) { return {columns, columns, true}; }

inline constexpr std::size_t kProductTile = 256;

// A tile of the matrix, of which first the high parts of the sums [rows, columns] are kept, then the low ones.
struct ProductTile {
  std::size_t first_row;
  std::size_t rows;
  std::size_t first_column;
  std::size_t columns;
  // Where its sums begin.
  std::size_t offset;

  SECATEUR_HOST_DEVICE constexpr std::size_t size() const { return rows * columns; }
};

SECATEUR_HOST_DEVICE constexpr std::size_t product_tiles(std::size_t size) { return (size + kProductTile - 1) / kProductTile; }

// Tiles go row by row; of a symmetric matrix there are those of the upper triangle.
SECATEUR_HOST_DEVICE constexpr ProductTile product_tile(const ProductShape& shape, std::size_t row, std::size_t column) {
  const std::size_t first_row = row * kProductTile;
  const std::size_t first_column = column * kProductTile;
  const std::size_t rows = shape.rows - first_row < kProductTile ? shape.rows - first_row : kProductTile;
  const std::size_t columns = shape.columns - first_column < kProductTile ? shape.columns - first_column : kProductTile;
  // Rows of tiles above have full height; of a symmetric matrix each is a tile narrower than the one before.
  const std::size_t missing = shape.symmetric ? row * (row - 1) / 2 * kProductTile : 0;
  const std::size_t above = 2 * kProductTile * (row * shape.columns - missing);
  const std::size_t before = 2 * rows * (shape.symmetric ? column - row : column) * kProductTile;
  return {first_row, rows, first_column, columns, above + before};
}

// Values of all sums.
constexpr std::size_t product_values(const ProductShape& shape) {
  if (shape.rows == 0 || shape.columns == 0) return 0;
  const ProductTile last = product_tile(shape, product_tiles(shape.rows) - 1, product_tiles(shape.columns) - 1);
  return last.offset + 2 * last.size();
}

// high + low += value, exactly but for the rounding of low.
SECATEUR_HOST_DEVICE inline void add_to_sum(double& high, double& low, double value) {
  const double sum = high + value;
  const double moved = sum - high;
  low += (high - (sum - moved)) + (value - moved);
  high = sum;
}

}  // namespace secateur
