#include "cuda/kernels/attention_narrow.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/narrow_values.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE_TEMPLATE(
    "traffic of attention on tensor cores: every block reads its queries and, of keys and values, those before its last query", Narrow,
    gpu::bfloat16, gpu::float16) {
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 128;
  for (const std::size_t width : {32U, 64U, 96U, 128U}) {
    CAPTURE(width);
    DeviceArray<float> queries(random_values(kLength * kHeads * width, 1));
    DeviceArray<Narrow> keys(narrow_values<Narrow>(kLength * width, 2));
    DeviceArray<float> result(kLength * kHeads * width);
    const auto attend = [&] {
      return gpu::attend_narrow({1, kLength, kHeads, 1, width, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
    };
    const std::size_t values = kLength * kHeads * width;
    check_whole_sectors(traffic_of(attend), values * sizeof(float) + 2 * values * sizeof(Narrow), values * sizeof(float));
  }
}

TEST_CASE_TEMPLATE("traffic of attention on tensor cores at the edges: whole pieces of the rows that there are", Narrow, gpu::bfloat16,
                   gpu::float16) {
  constexpr std::size_t kSamples = 2;
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 151;
  constexpr std::size_t kWidth = 24;
  constexpr std::size_t kLanes = 32;
  constexpr std::size_t kQueries = 128;
  constexpr std::size_t kKeys = 64;
  struct KeyPiece {
    std::uint16_t values[8];
  };
  struct QueryPiece {
    float values[4];
  };
  struct Pair {
    float values[2];
  };
  // Of a row of keys; a tile has four, for a width of 32.
  constexpr std::size_t kKeyPieces = kWidth / 8;
  constexpr std::size_t kTilePieces = 4;
  DeviceArray<float> queries(random_values(kSamples * kLength * kHeads * kWidth, 1));
  DeviceArray<Narrow> keys(narrow_values<Narrow>(kSamples * kLength * kWidth, 2));
  DeviceArray<float> result(queries.size());
  TrafficModel model;
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    for (std::size_t head = 0; head < kHeads; ++head) {
      for (std::size_t first = 0; first < kLength; first += kQueries) {
        const auto query_begin = [&](std::size_t row) { return ((sample * kLength + row) * kHeads + head) * kWidth; };
        // A warp has a row of queries.
        model.read_places<QueryPiece>(kQueries * kLanes, [&](std::size_t i) {
          const std::size_t row = first + i / kLanes;
          const std::size_t piece = i % kLanes;
          return row < kLength && piece < kWidth / 4 ? query_begin(row) / 4 + piece : TrafficModel::kNowhere;
        });
        const auto key_piece = [&](std::size_t first_key, std::size_t i) {
          const std::size_t row = first_key + i / kTilePieces;
          const std::size_t piece = i % kTilePieces;
          return row < kLength && piece < kKeyPieces ? (sample * kLength + row) * kKeyPieces + piece : TrafficModel::kNowhere;
        };
        for (std::size_t key = 0; key < std::min(first + kQueries, kLength); key += kKeys) {
          const auto place = [&](std::size_t i) { return key_piece(key, i); };
          model.read_places<KeyPiece>(kKeys * kTilePieces, place);
          model.read_places<KeyPiece>(kKeys * kTilePieces, place);
        }
        // A warp writes eight rows of eight columns at a time, two neighbours a lane; it has 16 queries.
        for (std::size_t column = 0; column < kWidth; column += 8) {
          for (const std::size_t half : {0U, 8U}) {
            model.write_places<Pair>(kQueries / 2 * 4, [&](std::size_t i) {
              const std::size_t row = first + i / kLanes * 16 + half + i % kLanes / 4;
              return row < kLength ? (query_begin(row) + column) / 2 + i % 4 : TrafficModel::kNowhere;
            });
          }
        }
      }
    }
  }
  const auto attend = [&] {
    return gpu::attend_narrow({kSamples, kLength, kHeads, 1, kWidth, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
  };
  check_traffic(traffic_of(attend), model);
}

}  // namespace secateur::test
