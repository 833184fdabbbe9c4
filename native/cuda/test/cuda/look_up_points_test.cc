#include "cuda/kernels/look_up_points.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "device_array.h"
#include "schedules.h"

namespace secateur::test {

TEST_CASE("look_up_points") {
  in_all_schedules([] {
    for (const std::size_t rows : {1U, 127U, 128U, 300U}) {
      for (const std::size_t columns : {1U, 7U}) {
        CAPTURE(rows);
        CAPTURE(columns);
        std::mt19937 random(3);
        std::vector<gpu::CurvePoint> points(rows * (columns + 1));
        for (std::size_t i = 0; i < points.size(); ++i) points[i] = {static_cast<float>(i), -static_cast<float>(i)};
        std::vector<std::int32_t> counts(rows);
        for (std::int32_t& count : counts)
          count = std::uniform_int_distribution<std::int32_t>(0, static_cast<std::int32_t>(columns))(random);
        DeviceArray<gpu::CurvePoint> device_points(points);
        DeviceArray<std::int32_t> device_counts(counts);
        DeviceArray<gpu::CurvePoint> device_found(rows);
        REQUIRE(gpu::look_up_points(device_points.data(), device_counts.data(), rows, columns, device_found.data(), nullptr) ==
                cudaSuccess);
        const std::vector<gpu::CurvePoint> found = device_found.read();
        CHECK(device_found.is_guarded());
        for (std::size_t row = 0; row < rows; ++row) {
          const auto expected = static_cast<float>(row * (columns + 1) + static_cast<std::size_t>(counts[row]));
          CHECK(found[row].aligned == expected);
          CHECK(found[row].residual == -expected);
        }
      }
    }
  });
  CHECK(gpu::look_up_points(nullptr, nullptr, 0, 5, nullptr, nullptr) == cudaSuccess);
}

}  // namespace secateur::test
