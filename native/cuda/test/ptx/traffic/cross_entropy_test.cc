#include "cuda/kernels/cross_entropy.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of cross-entropy: the logits of a tile twice, and a few values of each token") {
  constexpr std::size_t kTokens = 3;
  constexpr std::size_t kThreads = 256;
  for (const std::size_t words : {512U, 333U}) {
    CAPTURE(words);
    DeviceArray<float> logits(random_values(kTokens * words, 1));
    // Of the first token the next one is in the first tile, of the others in the second.
    DeviceArray<std::int32_t> next_ids(
        std::vector<std::int32_t>{7, static_cast<std::int32_t>(words), static_cast<std::int32_t>(words + 9)});
    DeviceArray<double> log_sums(kTokens);
    DeviceArray<float> next_logits(kTokens);
    TrafficModel tiles[2];
    for (std::size_t tile = 0; tile < 2; ++tile) {
      TrafficModel& model = tiles[tile];
      for (std::size_t token = 0; token < kTokens; ++token) {
        // The first logit is where every thread begins to look for the highest.
        model.read_same<float>(kThreads).read_run<float>(token * words, words).read_run<float>(token * words, words);
        if (tile > 0) model.read_same<double>(1);
        model.write_one<double>().read_same<std::int32_t>(1);
        if ((token == 0) == (tile == 0)) model.read_same<float>(1).write_one<float>();
      }
      const gpu::CrossEntropyTask task{kTokens, words, tile * words, logits.data(), next_ids.data(), log_sums.data(), next_logits.data()};
      check_traffic(traffic_of([&] { return gpu::accumulate_cross_entropy(task, nullptr); }), model);
    }
  }
}

}  // namespace secateur::test
