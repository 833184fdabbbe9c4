#include "cuda/kernels/inverse_factor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "device_array.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kTile = 64;
constexpr std::size_t kSquare = 16;
constexpr std::size_t kThreads = kSquare * kSquare;
// Terms of a sum that are in shared memory at once.
constexpr std::size_t kDepth = 16;

// What blocks ask for of a matrix [size, size]; tiles are named by their first row and column.
class Tiles {
 public:
  explicit Tiles(std::size_t size) : size_(size) {}

  // The lower half in, the whole tile out.
  void factor(std::size_t first) {
    const std::size_t end = std::min(size_, first + kTile);
    for (std::size_t row = first; row < end; ++row) {
      model_.read_run<double>(row * size_ + first, row + 1 - first).write_run<double>(row * size_ + first, end - first);
    }
  }
  // A strip of a tile's columns and one of its rows.
  void read_columns(std::size_t first_row, std::size_t first_column) {
    model_.read_places<double>(kTile * kDepth, [&](std::size_t i) { return place(first_row + i / kDepth, first_column + i % kDepth); });
  }
  void read_rows(std::size_t first_row, std::size_t first_column) {
    model_.read_places<double>(kTile * kDepth, [&](std::size_t i) { return place(first_row + i / kTile, first_column + i % kTile); });
  }
  // The sums of a tile's threads, each of every 16th row and column.
  void write_tile(std::size_t first_row, std::size_t first_column) {
    for_own(first_row, first_column, [&](const auto& place_of) { model_.write_places<double>(kThreads, place_of); });
  }
  void read_tile(std::size_t first_row, std::size_t first_column) {
    for_own(first_row, first_column, [&](const auto& place_of) { model_.read_places<double>(kThreads, place_of); });
  }

  const TrafficModel& model() const { return model_; }

 private:
  std::size_t place(std::size_t row, std::size_t column) const {
    return row < size_ && column < size_ ? row * size_ + column : TrafficModel::kNowhere;
  }
  template <class Visit>
  void for_own(std::size_t first_row, std::size_t first_column, const Visit& visit) {
    for (std::size_t row = first_row; row < first_row + kTile; row += kSquare) {
      for (std::size_t column = first_column; column < first_column + kTile; column += kSquare) {
        visit([&](std::size_t thread) { return place(row + thread / kSquare, column + thread % kSquare); });
      }
    }
  }

  std::size_t size_;
  TrafficModel model_;
};

// Of the blocks of inverse_factor, in float64; all shared memory without conflicts.
TrafficModel model_of(std::size_t size) {
  Tiles tiles(size);
  const std::size_t last = (size - 1) / kTile * kTile;
  for (std::size_t k = last;; k -= kTile) {
    tiles.factor(k);
    // The row of tiles left of it, by that tile.
    for (std::size_t column = 0; column < k; column += kTile) {
      for (std::size_t t = 0; t < kTile; t += kDepth) {
        tiles.read_columns(k, k + t);
        tiles.read_rows(k + t, column);
      }
      tiles.write_tile(k, column);
    }
    // The tiles above, on the diagonal and below it; a tile on the diagonal is worked through whole, and needs the same strip twice.
    for (std::size_t row = 0; row < k; row += kTile) {
      for (std::size_t column = 0; column <= row; column += kTile) {
        for (std::size_t t = 0; t < kTile; t += kDepth) {
          tiles.read_rows(k + t, row);
          tiles.read_rows(k + t, column);
        }
        tiles.read_tile(row, column);
        tiles.write_tile(row, column);
      }
    }
    if (k == 0) break;
  }
  // U from the left: of a tile's row, what is there, times a row of W; then times the tile on the diagonal.
  for (std::size_t k = kTile; k <= last; k += kTile) {
    for (std::size_t row = 0; row < k; row += kTile) {
      for (std::size_t t = row; t < k; t += kDepth) {
        tiles.read_columns(row, t);
        tiles.read_columns(k, t);
      }
      for (std::size_t t = 0; t < kTile; t += kDepth) tiles.read_rows(k + t, k);
      tiles.write_tile(row, k);
    }
  }
  return tiles.model();
}

}  // namespace

TEST_CASE("traffic of an inverse's factor: strips of tiles, and every tile once") {
  for (const std::size_t size : {128U, 147U}) {
    CAPTURE(size);
    std::vector<double> values(size * size);
    for (std::size_t i = 0; i < size; ++i) values[i * size + i] = 2;
    DeviceArray<double> matrix(values);
    DeviceArray<unsigned> failed(std::vector<unsigned>{0});
    check_traffic(traffic_of([&] { return gpu::inverse_factor(matrix.data(), size, failed.data(), nullptr); }), model_of(size));
    CHECK(failed.read() == std::vector<unsigned>{0});
  }
}

}  // namespace secateur::test
