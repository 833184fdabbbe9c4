#include "cpu/repair/inverse_factor.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/gemm.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kTile = 128;
constexpr std::size_t kStrip = 256;
constexpr double kLargestPivot = 1e30;

// With W lower triangular and WᵀW = matrix, found from the last tile upwards, U is the inverse of Wᵀ: W takes the lower half and U the
// upper one, and the tiles of the diagonal hold those of U, for W's are not needed again.
class InverseFactor {
 public:
  InverseFactor(float* matrix, std::size_t size, ThreadPool& pool, CallContext& context)
      : matrix_(matrix), size_(size), pool_(pool), context_(context), scratch_(pool.size() * kTile * kStrip) {}

  bool run() {
    for (std::size_t tile = tiles(); tile-- > 0;) {
      context_.check();
      if (!factor_diagonal_tile(tile)) return false;
      finish_row_of_tiles(tile);
      update_tiles_above(tile);
    }
    for (std::size_t tile = 1; tile < tiles(); ++tile) invert_column_of_tiles(tile);
    return true;
  }

 private:
  std::size_t tiles() const { return (size_ + kTile - 1) / kTile; }
  std::size_t tile_size(std::size_t tile) const { return std::min(kTile, size_ - tile * kTile); }
  float* at(std::size_t row, std::size_t column) const { return matrix_ + row * size_ + column; }
  float* scratch(std::size_t worker) { return scratch_.data() + worker * kTile * kStrip; }

  // Replaces the tile of the diagonal by U's: A = WᵀW, U = W⁻ᵀ.
  bool factor_diagonal_tile(std::size_t tile) {
    const std::size_t first = tile * kTile;
    const std::size_t count = tile_size(tile);
    const PhaseScope scope(context_, "factor", static_cast<double>(count * count * count));
    std::vector<double> w(count * count);
    for (std::size_t row = 0; row < count; ++row) std::copy_n(at(first + row, first), row + 1, w.data() + row * count);
    // W from the last row upwards; only the lower half is read and written.
    for (std::size_t k = count; k-- > 0;) {
      double* const pivot_row = w.data() + k * count;
      if (!(pivot_row[k] > 0 && pivot_row[k] < kLargestPivot)) return false;
      const double root = std::sqrt(pivot_row[k]);
      for (std::size_t column = 0; column < k; ++column) pivot_row[column] /= root;
      pivot_row[k] = root;
      for (std::size_t row = 0; row < k; ++row) {
        for (std::size_t column = 0; column <= row; ++column) w[row * count + column] -= pivot_row[row] * pivot_row[column];
      }
    }
    // Row r of U is column r of W⁻¹.
    std::vector<double> u(count);
    for (std::size_t r = 0; r < count; ++r) {
      u[r] = 1.0 / w[r * count + r];
      for (std::size_t column = r + 1; column < count; ++column) {
        double sum = 0;
        for (std::size_t t = r; t < column; ++t) sum += w[column * count + t] * u[t];
        u[column] = -sum / w[column * count + column];
      }
      for (std::size_t column = 0; column < count; ++column)
        *at(first + r, first + column) = column < r ? 0.0F : static_cast<float>(u[column]);
    }
    return true;
  }

  // W[k, i] = U[k, k] · A[k, i] for the tiles i left of the diagonal.
  void finish_row_of_tiles(std::size_t tile) {
    const std::size_t first = tile * kTile;
    const std::size_t count = tile_size(tile);
    pool_.parallel_for((first + kStrip - 1) / kStrip, [&](std::size_t strip, std::size_t worker) {
      const std::size_t column = strip * kStrip;
      const std::size_t columns = std::min(kStrip, first - column);
      const PhaseScope scope(context_, "factor", 2.0 * static_cast<double>(count * count * columns));
      for (std::size_t row = 0; row < count; ++row) std::copy_n(at(first + row, column), columns, scratch(worker) + row * kStrip);
      multiply(count, columns, count, 1.0F, at(first, first), size_, scratch(worker), kStrip, at(first, column), size_);
    });
  }

  // A[j, i] -= W[k, j]ᵀ · W[k, i] for the tiles i <= j above the row of tiles.
  void update_tiles_above(std::size_t tile) {
    const std::size_t first = tile * kTile;
    const std::size_t count = tile_size(tile);
    pool_.parallel_for(tile, [&](std::size_t item, std::size_t) {
      context_.check();
      // The widest first.
      const std::size_t row = (tile - 1 - item) * kTile;
      const std::size_t columns = row + kTile;
      const PhaseScope scope(context_, "factor", 2.0 * static_cast<double>(kTile * columns * count));
      multiply_left_transposed(kTile, columns, count, -1.0F, at(first, row), size_, at(first, 0), size_, at(row, 0), size_, true);
    });
  }

  // U[i, k] = -(Σ_j U[i, j] · W[k, j]ᵀ) · U[k, k], i <= j < k, for the tiles i above the diagonal.
  void invert_column_of_tiles(std::size_t tile) {
    const std::size_t first = tile * kTile;
    const std::size_t count = tile_size(tile);
    pool_.parallel_for(tile, [&](std::size_t item, std::size_t worker) {
      context_.check();
      const std::size_t row = item * kTile;
      const PhaseScope scope(context_, "factor", 2.0 * static_cast<double>(kTile * count * (first - row + count)));
      multiply_transposed(kTile, count, first - row, -1.0F, at(row, row), size_, at(first, row), size_, scratch(worker), count);
      multiply(kTile, count, count, 1.0F, scratch(worker), count, at(first, first), size_, at(row, first), size_);
    });
  }

  float* matrix_;
  std::size_t size_;
  ThreadPool& pool_;
  CallContext& context_;
  std::vector<float> scratch_;
};

}  // namespace

bool inverse_factor(float* matrix, std::size_t size, ThreadPool& pool, CallContext& context) {
  return InverseFactor(matrix, size, pool, context).run();
}

}  // namespace secateur::cpu
