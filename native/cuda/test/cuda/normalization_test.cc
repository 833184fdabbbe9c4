#include "cuda/kernels/normalization.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {

TEST_CASE("normalisations agree with float64") {
  in_all_schedules([] {
    for (const std::size_t size : {1U, 31U, 33U, 255U, 257U, 600U}) {
      for (const bool centred : {false, true}) {
        constexpr std::size_t kTokens = 3;
        CAPTURE(size);
        CAPTURE(centred);
        std::vector<float> x = random_values(kTokens * size, 1);
        for (float& value : x) value += 2;
        const std::vector<float> weight = random_values(size, 2);
        const std::vector<float> bias = random_values(size, 3);
        DeviceArray<float> input(x);
        DeviceArray<float> device_weight(weight);
        DeviceArray<float> device_bias(bias);
        DeviceArray<float> output(kTokens * size);
        const gpu::NormalizationTask task{
            kTokens, size, 1e-5, input.data(), device_weight.data(), centred ? device_bias.data() : nullptr, output.data()};
        REQUIRE((centred ? gpu::layer_norm(task, nullptr) : gpu::rms_norm(task, nullptr)) == cudaSuccess);
        const std::vector<float> actual = output.read();
        CHECK(output.is_guarded());
        for (std::size_t token = 0; token < kTokens; ++token) {
          double mean = 0;
          double squares = 0;
          const float* const row = x.data() + token * size;
          for (std::size_t i = 0; i < size; ++i) mean += centred ? static_cast<double>(row[i]) / static_cast<double>(size) : 0.0;
          for (std::size_t i = 0; i < size; ++i) squares += std::pow(static_cast<double>(row[i]) - mean, 2) / static_cast<double>(size);
          for (std::size_t i = 0; i < size; ++i) {
            const double expected = (static_cast<double>(row[i]) - mean) / std::sqrt(squares + 1e-5) * static_cast<double>(weight[i]) +
                                    (centred ? static_cast<double>(bias[i]) : 0.0);
            REQUIRE(std::abs(static_cast<double>(actual[token * size + i]) - expected) < 2e-5);
          }
        }
      }
    }
  });
}

}  // namespace secateur::test
