#include "cuda/kernels/elementwise.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of element-wise operations: every value once") {
  constexpr std::size_t kTokens = 6;
  constexpr std::size_t kSize = 512;
  constexpr std::size_t kValues = kTokens * kSize;
  constexpr std::size_t kBytes = kValues * sizeof(float);
  DeviceArray<float> x(random_values(kValues, 1));
  DeviceArray<float> y(random_values(kValues, 2));
  DeviceArray<gpu::bfloat16> narrow(kValues);
  DeviceArray<gpu::float16> half(kValues);
  DeviceArray<unsigned> flag(1);
  check_whole_sectors(traffic_of([&] { return gpu::add(x.data(), y.data(), kValues, nullptr); }), 2 * kBytes, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::subtract(x.data(), y.data(), kValues, nullptr); }), 2 * kBytes, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::silu_multiply(x.data(), y.data(), kValues, nullptr); }), 2 * kBytes, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::relu(x.data(), kValues, nullptr); }), kBytes, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::narrow(x.data(), narrow.data(), kValues, nullptr); }), kBytes, kBytes / 2);
  check_whole_sectors(traffic_of([&] { return gpu::narrow(x.data(), half.data(), kValues, nullptr); }), kBytes, kBytes / 2);
  check_whole_sectors(traffic_of([&] { return gpu::widen(narrow.data(), x.data(), kValues, nullptr); }), kBytes / 2, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::widen(half.data(), x.data(), kValues, nullptr); }), kBytes / 2, kBytes);
  check_whole_sectors(traffic_of([&] { return gpu::flag_non_finite(y.data(), kValues, flag.data(), nullptr); }), kBytes, 0);
  const std::size_t rows = 2 * kSize * sizeof(float);
  check_whole_sectors(traffic_of([&] { return gpu::gather_last(y.data(), 2, kTokens / 2, kSize, x.data(), nullptr); }), rows, rows);
}

TEST_CASE("traffic of element-wise operations on what is no whole number of quads: the rest one by one") {
  constexpr std::size_t kQuads = 70;
  constexpr std::size_t kValues = 4 * kQuads + 3;
  struct Quad {
    float values[4];
  };
  DeviceArray<float> x(random_values(kValues, 1));
  DeviceArray<float> y(random_values(kValues, 2));
  TrafficModel model;
  model.read_run<Quad>(0, kQuads).read_run<Quad>(0, kQuads).write_run<Quad>(0, kQuads);
  model.read_run<float>(4 * kQuads, 3).read_run<float>(4 * kQuads, 3).write_run<float>(4 * kQuads, 3);
  check_traffic(traffic_of([&] { return gpu::add(x.data(), y.data(), kValues, nullptr); }), model);
}

}  // namespace secateur::test
