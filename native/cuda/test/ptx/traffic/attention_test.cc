#include "cuda/kernels/attention.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of attention: queries once, keys and values once for each head that shares them") {
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 64;
  for (const std::size_t width : {32U, 64U, 96U, 128U}) {
    CAPTURE(width);
    DeviceArray<float> queries(random_values(kLength * kHeads * width, 1));
    DeviceArray<float> keys(random_values(kLength * width, 2));
    DeviceArray<float> result(kLength * kHeads * width);
    const auto attend = [&] {
      return gpu::attend({1, kLength, kHeads, 1, width, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
    };
    const std::size_t bytes = kLength * kHeads * width * sizeof(float);
    check_whole_sectors(traffic_of(attend), 3 * bytes, bytes);
  }
}

TEST_CASE("traffic of attention at the edges: whole pieces of the rows that there are") {
  constexpr std::size_t kSamples = 2;
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 71;
  constexpr std::size_t kWidth = 20;
  constexpr std::size_t kPieces = kWidth / 4;
  // What threads share out: eight pieces a row, 64 queries and 32 keys in a tile.
  constexpr std::size_t kTilePieces = 8;
  constexpr std::size_t kQueries = 64;
  constexpr std::size_t kKeys = 32;
  struct Piece {
    float values[4];
  };
  DeviceArray<float> queries(random_values(kSamples * kLength * kHeads * kWidth, 1));
  DeviceArray<float> keys(random_values(kSamples * kLength * kWidth, 2));
  DeviceArray<float> result(queries.size());
  TrafficModel model;
  const auto read_tile = [&](std::size_t rows, std::size_t first_row, const auto& row_begin) {
    model.read_places<Piece>(rows * kTilePieces, [&](std::size_t i) {
      const std::size_t row = first_row + i / kTilePieces;
      const std::size_t piece = i % kTilePieces;
      return row < kLength && piece < kPieces ? row_begin(row) + piece : TrafficModel::kNowhere;
    });
  };
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    for (std::size_t head = 0; head < kHeads; ++head) {
      for (std::size_t first = 0; first < kLength; first += kQueries) {
        const auto query_begin = [&](std::size_t row) { return ((sample * kLength + row) * kHeads + head) * kPieces; };
        const auto key_begin = [&](std::size_t row) { return (sample * kLength + row) * kPieces; };
        read_tile(kQueries, first, query_begin);
        for (std::size_t key = 0; key < std::min(first + kQueries, kLength); key += kKeys) {
          read_tile(kKeys, key, key_begin);
          read_tile(kKeys, key, key_begin);
        }
        // Eight threads write a query's result.
        model.write_places<Piece>(kQueries * kTilePieces, [&](std::size_t i) {
          const std::size_t row = first + i / kTilePieces;
          const std::size_t piece = i % kTilePieces;
          return row < kLength && piece < kPieces ? query_begin(row) + piece : TrafficModel::kNowhere;
        });
      }
    }
  }
  const auto attend = [&] {
    return gpu::attend({kSamples, kLength, kHeads, 1, kWidth, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
  };
  check_traffic(traffic_of(attend), model);
}

}  // namespace secateur::test
