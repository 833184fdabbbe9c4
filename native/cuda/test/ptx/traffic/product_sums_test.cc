#include "cuda/kernels/product_sums.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kTile = 64;
constexpr std::size_t kSquare = 16;
// Tokens in shared memory at once.
constexpr std::size_t kStripTokens = 32;

// A strip of values [tokens, columns].
void read_strip(TrafficModel& model, std::size_t tokens, std::size_t columns, std::size_t first_token, std::size_t first_column) {
  model.read_places<float>(kStripTokens * kTile, [=](std::size_t i) {
    const std::size_t token = first_token + i / kTile;
    const std::size_t column = first_column + i % kTile;
    return token < tokens && column < columns ? token * columns + column : TrafficModel::kNowhere;
  });
}

// The sums of a tile's threads, each of every 16th row and column, high parts and low ones.
void update_sums(TrafficModel& model, const ProductTile& tile, std::size_t first_row, std::size_t first_column) {
  for (std::size_t row = first_row - tile.first_row; row < first_row - tile.first_row + kTile; row += kSquare) {
    for (std::size_t column = first_column - tile.first_column; column < first_column - tile.first_column + kTile; column += kSquare) {
      for (const std::size_t begin : {tile.offset, tile.offset + tile.size()}) {
        const auto own = [=](std::size_t thread) {
          const std::size_t own_row = row + thread / kSquare;
          const std::size_t own_column = column + thread % kSquare;
          return own_row < tile.rows && own_column < tile.columns ? begin + own_row * tile.columns + own_column : TrafficModel::kNowhere;
        };
        model.read_places<double>(kSquare * kSquare, own).write_places<double>(kSquare * kSquare, own);
      }
    }
  }
}

void check_product_sums(std::size_t tokens, const ProductShape& shape) {
  CAPTURE(shape.columns);
  DeviceArray<float> left(random_values(tokens * shape.rows, 1));
  DeviceArray<float> right(random_values(tokens * shape.columns, 2));
  DeviceArray<double> sums(std::vector<double>(product_values(shape)));
  TrafficModel model;
  for (std::size_t row = 0; row < shape.rows; row += kTile) {
    for (std::size_t column = 0; column < shape.columns; column += kTile) {
      // The layout has none below the diagonal, but those on it are whole.
      if (shape.symmetric && row / kProductTile > column / kProductTile) continue;
      for (std::size_t token = 0; token < tokens; token += kStripTokens) {
        read_strip(model, tokens, shape.rows, token, row);
        read_strip(model, tokens, shape.columns, token, column);
      }
      update_sums(model, product_tile(shape, row / kProductTile, column / kProductTile), row, column);
    }
  }
  const float* const same_or_left = shape.symmetric ? right.data() : left.data();
  check_traffic(traffic_of([&] {
                  return gpu::add_product_sums({tokens, shape, same_or_left, right.data(), sums.data()}, nullptr);
                }),
                model);
}

}  // namespace

TEST_CASE("traffic of products that are summed up: strips of every tile, and the sums in and out, without conflicts") {
  check_product_sums(96, gram_shape(128));
  check_product_sums(41, gram_shape(301));
  check_product_sums(33, {70, 301, false});
}

}  // namespace secateur::test
