#include "cuda/kernels/cross_entropy.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

constexpr std::size_t kWords = 300;
constexpr std::size_t kTileWords = 100;

// Logarithm of the sum of exponentials of one token's logits, tile by tile.
double tiled_log_sum(const std::vector<float>& logits) {
  DeviceArray<float> device_logits(logits);
  DeviceArray<std::int32_t> next(std::vector<std::int32_t>{0});
  DeviceArray<double> log_sums(1);
  DeviceArray<float> next_logits(1);
  for (std::size_t first = 0; first < kWords; first += kTileWords) {
    REQUIRE(gpu::accumulate_cross_entropy(
                {1, kTileWords, first, device_logits.data() + first, next.data(), log_sums.data(), next_logits.data()}, nullptr) ==
            cudaSuccess);
  }
  const double log_sum = log_sums.read()[0];
  CHECK(log_sums.is_guarded());
  CHECK(next_logits.is_guarded());
  return log_sum;
}

}  // namespace

TEST_CASE("logits far apart neither overflow nor vanish, whichever tile holds the largest") {
  in_all_schedules([] {
    for (const std::size_t largest : {std::size_t{0}, std::size_t{150}, kWords - 1}) {
      for (const float height : {20.0F, 90.0F, 3e4F}) {
        CAPTURE(largest);
        CAPTURE(height);
        std::vector<float> logits = random_values(kWords, 1);
        logits[largest] = height;
        double sum = 0;
        for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - static_cast<double>(height));
        CHECK(tiled_log_sum(logits) == doctest::Approx(static_cast<double>(height) + std::log(sum)).epsilon(1e-7));
      }
    }
  });
}

TEST_CASE("the next token's logit is taken from the tile that has it") {
  in_all_schedules([] {
    const std::vector<float> logits = random_values(kTileWords, 1);
    DeviceArray<float> device_logits(logits);
    for (const std::size_t next : {kTileWords - 1, kTileWords, 2 * kTileWords - 1, 2 * kTileWords}) {
      CAPTURE(next);
      DeviceArray<std::int32_t> next_ids(std::vector<std::int32_t>{static_cast<std::int32_t>(next)});
      DeviceArray<double> log_sums(std::vector<double>{1});
      DeviceArray<float> next_logits(std::vector<float>{-5});
      // The second tile, and the end of its array.
      REQUIRE(gpu::accumulate_cross_entropy(
                  {1, kTileWords, kTileWords, device_logits.data(), next_ids.data(), log_sums.data(), next_logits.data()}, nullptr) ==
              cudaSuccess);
      const bool inside = next / kTileWords == 1;
      CHECK(next_logits.read()[0] == (inside ? logits[next - kTileWords] : -5.0F));
    }
  });
}

TEST_CASE("one logit that is NaN shows in the loss, whichever tile holds it") {
  in_all_schedules([] {
    for (const std::size_t place : {std::size_t{0}, std::size_t{99}, std::size_t{100}, std::size_t{150}, kWords - 1}) {
      CAPTURE(place);
      std::vector<float> logits = random_values(kWords, 1);
      logits[place] = std::numeric_limits<float>::quiet_NaN();
      CHECK(std::isnan(tiled_log_sum(logits)));
    }
  });
}

}  // namespace secateur::test
