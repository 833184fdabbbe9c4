#include "cuda/kernels/sparsegpt.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kBlock = gpu::kSparseGptColumns;
constexpr std::size_t kLanes = 32;
// Rows of weights, each with a warp, that share the factor in shared memory.
constexpr std::size_t kBlockRows = 16;
constexpr std::size_t kTile = 64;
constexpr std::size_t kSquare = 16;
constexpr std::size_t kDepth = 16;

// [rows, columns] of weights; the input of column 1 is dead.
class Model {
 public:
  Model(std::size_t rows, std::size_t columns) : rows_(rows), columns_(columns) {}

  void score(std::size_t first) {
    const std::size_t width = std::min(kBlock, columns_ - first);
    for (std::size_t row = 0; row < rows_; ++row) {
      read_weights(row, first, width);
      // Values of the diagonal have a sector each.
      model_.read_places<double>(width, [=, this](std::size_t i) { return (first + i) * columns_ + first + i; });
      model_.write_run<float>(row * width, width);
    }
  }

  void prune(std::size_t first, bool chosen) {
    const std::size_t width = std::min(kBlock, columns_ - first);
    const std::size_t row_bytes = (columns_ + 7) / 8;
    for (std::size_t row = 0; row < rows_; row += kBlockRows) {
      // The upper half of a block of the factor.
      model_.read_places<double>(kBlock * kBlock, [=, this](std::size_t i) {
        const std::size_t above = first + i / kBlock;
        const std::size_t column = first + i % kBlock;
        return above <= column && column < columns_ ? above * columns_ + column : TrafficModel::kNowhere;
      });
    }
    for (std::size_t row = 0; row < rows_; ++row) {
      read_weights(row, first, width);
      if (chosen) {
        model_.read_places<std::uint8_t>(width, [=](std::size_t i) { return row * ((width + 7) / 8) + i / 8; });
      } else {
        model_.read_same<std::int32_t>(kLanes);
      }
      model_.write_run<float>(row * columns_ + first, width).write_run<float>(row * kBlock, kBlock);
      write_mask_row(model_, row * row_bytes + first / 8, (width + 7) / 8);
    }
    for (std::size_t row = 0; row < rows_; row += kTile) {
      for (std::size_t column = first + kBlock; column < columns_; column += kTile) update(first, row, column);
    }
  }

  const TrafficModel& model() const { return model_; }

 private:
  void read_weights(std::size_t row, std::size_t first, std::size_t width) {
    model_.read_run<std::uint8_t>(first, width);
    model_.read_places<float>(width,
                              [=, this](std::size_t i) { return first + i == 1 ? TrafficModel::kNowhere : row * columns_ + first + i; });
  }

  // A tile of the weights to the right, in strips of the errors' columns and the factor's rows.
  void update(std::size_t first, std::size_t first_row, std::size_t first_column) {
    for (std::size_t begin = 0; begin < kBlock; begin += kDepth) {
      model_.read_places<float>(kTile * kDepth, [=, this](std::size_t i) {
        const std::size_t row = first_row + i / kDepth;
        return row < rows_ ? row * kBlock + begin + i % kDepth : TrafficModel::kNowhere;
      });
      model_.read_places<double>(kTile * kDepth, [=, this](std::size_t i) {
        const std::size_t column = first_column + i % kTile;
        return column < columns_ ? (first + begin + i / kTile) * columns_ + column : TrafficModel::kNowhere;
      });
    }
    for (std::size_t i = 0; i < kTile; i += kSquare) {
      for (std::size_t j = 0; j < kTile; j += kSquare) {
        const auto own = [=, this](std::size_t thread) {
          const std::size_t row = first_row + i + thread / kSquare;
          const std::size_t column = first_column + j + thread % kSquare;
          return row < rows_ && column < columns_ ? row * columns_ + column : TrafficModel::kNowhere;
        };
        model_.read_places<float>(kSquare * kSquare, own).write_places<float>(kSquare * kSquare, own);
      }
    }
  }

  std::size_t rows_;
  std::size_t columns_;
  TrafficModel model_;
};

}  // namespace

TEST_CASE("traffic of SparseGPT: a block of the factor for 16 rows, the weights of the block, and tiles of those to its right") {
  struct Shape {
    std::size_t rows;
    std::size_t columns;
  };
  for (const Shape& shape : {Shape{64, 256}, Shape{19, 205}}) {
    CAPTURE(shape.columns);
    const auto [rows, columns] = shape;
    const std::size_t row_bytes = (columns + 7) / 8;
    DeviceArray<double> factor(std::vector<double>(columns * columns, 1.0));
    std::vector<std::uint8_t> dead_columns(columns);
    dead_columns[1] = 1;
    DeviceArray<std::uint8_t> dead(dead_columns);
    DeviceArray<std::int32_t> counts(std::vector<std::int32_t>(rows, static_cast<std::int32_t>(columns / 2)));
    DeviceArray<float> weights(random_values(rows * columns, 1));
    DeviceArray<float> errors(rows * kBlock);
    DeviceArray<std::uint8_t> mask(rows * row_bytes);
    DeviceArray<float> scores(rows * kBlock);
    DeviceArray<std::uint8_t> chosen(std::vector<std::uint8_t>(rows * kBlock / 8, 0x55));
    const gpu::SparseGptTask task{rows, columns, factor.data(), dead.data(), counts.data(), weights.data(), errors.data(), mask.data()};
    Model whole(rows, columns);
    for (std::size_t first = 0; first < columns; first += kBlock) {
      Model scored(rows, columns);
      scored.score(first);
      check_traffic(traffic_of([&] { return gpu::score_sparsegpt_block(task, first, scores.data(), nullptr); }), scored.model());
      Model told(rows, columns);
      told.prune(first, true);
      check_traffic(traffic_of([&] { return gpu::prune_sparsegpt_block(task, first, chosen.data(), nullptr); }), told.model());
      whole.prune(first, false);
    }
    check_traffic(traffic_of([&] { return gpu::prune_with_sparsegpt(task, nullptr); }), whole.model());
  }
}

}  // namespace secateur::test
