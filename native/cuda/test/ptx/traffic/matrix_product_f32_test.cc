#include "cuda/kernels/matrix_product_f32.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

// Every tile's block reads the rows of both operands that it needs, in strips, and writes its sums.
void check_product(std::size_t m, std::size_t n, std::size_t inner, std::size_t tile) {
  CAPTURE(tile);
  DeviceArray<float> left(random_values(m * inner, 1));
  DeviceArray<float> right(random_values(n * inner, 2));
  DeviceArray<float> result(m * n);
  const gpu::MatrixProductF32 task{m, n, inner, left.data(), right.data(), nullptr, result.data()};
  const std::size_t row_tiles = (m + tile - 1) / tile;
  const std::size_t column_tiles = (n + tile - 1) / tile;
  const std::size_t read_values = (m * column_tiles + n * row_tiles) * inner;
  check_whole_sectors(traffic_of([&] { return gpu::matrix_product_f32(task, nullptr); }), read_values * sizeof(float),
                      m * n * sizeof(float));
}

}  // namespace

TEST_CASE("traffic of matrix products: a tile's rows of both operands, through shared memory without conflicts") {
  check_product(256, 128, 96, 64);
  // Enough large tiles for a device, all of them narrower than they could be.
  check_product(128 * 128, 8, 16, 128);
}

}  // namespace secateur::test
