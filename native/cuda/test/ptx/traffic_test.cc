// What kernels ask of memory, against what their operation needs: bytes of global memory, whole sectors, and no conflicts of banks.
#include "ptx/traffic.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "compiled_kernels.h"
#include "cuda/kernels/attention.h"
#include "cuda/kernels/attention_bf16.h"
#include "cuda/kernels/column_sums.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/matrix_product_bf16.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/normalization.h"
#include "cuda/kernels/product_sums.h"
#include "cuda/kernels/rotary.h"
#include "device_array.h"
#include "random_values.h"

namespace secateur::test {
namespace {

// Of all launches of an operation.
template <class Operation>
ptx::Traffic traffic_of(const Operation& operation) {
  ptx::Traffic traffic;
  const auto count = [&](const cuda_on_host::Launch& launch, const auto&) { return run_compiled(compiled_kernels(), launch, &traffic); };
  cuda_on_host::LaunchHook before = cuda_on_host::set_launch_hook(count);
  require_success(operation());
  require_success(cudaDeviceSynchronize());
  cuda_on_host::set_launch_hook(std::move(before));
  return traffic;
}

// Reads and writes as many bytes, in whole sectors, without conflicts.
void check_traffic(const ptx::Traffic& traffic, std::size_t read_bytes, std::size_t written_bytes) {
  CHECK(traffic.global().read_bytes == read_bytes);
  CHECK(traffic.global().read_sectors * ptx::Traffic::kSectorBytes == read_bytes);
  CHECK(traffic.global().written_bytes == written_bytes);
  CHECK(traffic.global().written_sectors * ptx::Traffic::kSectorBytes == written_bytes);
  CHECK(traffic.bank_conflicts() == 0);
}

constexpr std::size_t kTokens = 6;
constexpr std::size_t kSize = 512;
constexpr std::size_t kValues = kTokens * kSize;
constexpr std::size_t kBytes = kValues * sizeof(float);

}  // namespace

TEST_CASE("traffic of element-wise operations: every value once") {
  DeviceArray<float> x(random_values(kValues, 1));
  DeviceArray<float> y(random_values(kValues, 2));
  DeviceArray<gpu::bfloat16> narrow(kValues);
  DeviceArray<unsigned> flag(1);
  check_traffic(traffic_of([&] { return gpu::add(x.data(), y.data(), kValues, nullptr); }), 2 * kBytes, kBytes);
  check_traffic(traffic_of([&] { return gpu::silu_multiply(x.data(), y.data(), kValues, nullptr); }), 2 * kBytes, kBytes);
  check_traffic(traffic_of([&] { return gpu::relu(x.data(), kValues, nullptr); }), kBytes, kBytes);
  check_traffic(traffic_of([&] { return gpu::narrow(x.data(), narrow.data(), kValues, nullptr); }), kBytes, kBytes / 2);
  check_traffic(traffic_of([&] { return gpu::widen(narrow.data(), x.data(), kValues, nullptr); }), kBytes / 2, kBytes);
  check_traffic(traffic_of([&] { return gpu::flag_non_finite(y.data(), kValues, flag.data(), nullptr); }), kBytes, 0);
  const std::size_t rows = 2 * kSize * sizeof(float);
  check_traffic(traffic_of([&] { return gpu::gather_last(y.data(), 2, kTokens / 2, kSize, x.data(), nullptr); }), rows, rows);
}

TEST_CASE("traffic of rows: once for each pass over them") {
  DeviceArray<float> x(random_values(kValues, 1));
  DeviceArray<float> weight(random_values(kSize, 2));
  DeviceArray<float> y(kValues);
  DeviceArray<double> sums(2 * kSize);
  const gpu::NormalizationTask task{kTokens, kSize, 1e-5, x.data(), weight.data(), weight.data(), y.data()};
  // Sum of squares; result, with the weight.
  check_traffic(traffic_of([&] { return gpu::rms_norm(task, nullptr); }), 3 * kBytes, kBytes);
  // Mean; deviation; result, with weight and bias.
  check_traffic(traffic_of([&] { return gpu::layer_norm(task, nullptr); }), 5 * kBytes, kBytes);
  const auto add_columns = [&] { return gpu::column_sums_of_squares({2, kTokens / 2, kSize, x.data(), sums.data()}, nullptr); };
  check_traffic(traffic_of(add_columns), kBytes, 2 * kSize * sizeof(double));
  // A cosine and a sine for each pair of states.
  const auto rotate = [&] { return gpu::rotate({kTokens, kTokens / 2, 4, kSize / 4, x.data(), weight.data(), y.data()}, nullptr); };
  check_traffic(traffic_of(rotate), 2 * kBytes, kBytes);
}

TEST_CASE("traffic of masks: a byte for every weight, and what is dropped") {
  DeviceArray<float> weights(random_values(kValues, 1));
  DeviceArray<std::uint8_t> mask(std::vector<std::uint8_t>(kValues / 8, 0x55));
  const ptx::Traffic traffic = traffic_of([&] { return gpu::apply_mask(weights.data(), mask.data(), kTokens, kSize, nullptr); });
  CHECK(traffic.global().read_bytes == kValues);
  CHECK(traffic.global().written_bytes == kBytes / 2);
  CHECK(traffic.global().written_sectors * ptx::Traffic::kSectorBytes == kBytes);
}

TEST_CASE("traffic of matrix products: a tile's rows of both operands, through shared memory without conflicts") {
  constexpr std::size_t kM = 256;
  constexpr std::size_t kN = 128;
  constexpr std::size_t kInner = 96;
  constexpr std::size_t kTile = 64;
  constexpr std::size_t kRead = kM / kTile * (kN / kTile) * 2 * kTile * kInner;
  constexpr std::size_t kWritten = kM * kN * sizeof(float);
  DeviceArray<float> left(random_values(kM * kInner, 1));
  DeviceArray<float> right(random_values(kN * kInner, 2));
  DeviceArray<gpu::bfloat16> narrow_left(kM * kInner);
  DeviceArray<gpu::bfloat16> narrow_right(kN * kInner);
  require_success(gpu::narrow(left.data(), narrow_left.data(), left.size(), nullptr));
  require_success(gpu::narrow(right.data(), narrow_right.data(), right.size(), nullptr));
  DeviceArray<float> result(kM * kN);
  const gpu::MatrixProductF32 task{kM, kN, kInner, left.data(), right.data(), nullptr, result.data()};
  check_traffic(traffic_of([&] { return gpu::matrix_product_f32(task, nullptr); }), kRead * sizeof(float), kWritten);

  const gpu::MatrixProductBF16 narrow_task{kM, kN, kInner, narrow_left.data(), narrow_right.data(), nullptr, result.data()};
  check_traffic(traffic_of([&] { return gpu::matrix_product_bf16(narrow_task, nullptr); }), kRead * sizeof(gpu::bfloat16), kWritten);
}

TEST_CASE("traffic of a Gram matrix: strips of every tile, and the sums in and out") {
  constexpr std::size_t kColumns = 128;
  constexpr std::size_t kRows = 96;
  constexpr std::size_t kTile = 64;
  const ProductShape shape = gram_shape(kColumns);
  DeviceArray<float> inputs(random_values(kRows * kColumns, 1));
  DeviceArray<double> sums(std::vector<double>(product_values(shape)));
  const ptx::Traffic traffic = traffic_of([&] {
    return gpu::add_product_sums({kRows, shape, inputs.data(), inputs.data(), sums.data()}, nullptr);
  });
  // Four tiles with two strips each.
  CHECK(traffic.global().read_bytes == 4 * 2 * kRows * kTile * sizeof(float) + sums.size() * sizeof(double));
  CHECK(traffic.global().written_bytes == sums.size() * sizeof(double));
  CHECK(traffic.bank_conflicts() == 0);
}

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
    const ptx::Traffic traffic = traffic_of(attend);
    const std::size_t bytes = kLength * kHeads * width * sizeof(float);
    CHECK(traffic.global().read_bytes == 3 * bytes);
    CHECK(traffic.global().read_sectors * ptx::Traffic::kSectorBytes == 3 * bytes);
    CHECK(traffic.global().written_bytes == bytes);
    // They do not grow with the width: none are of queries, keys or values.
    CHECK(traffic.bank_conflicts() == 128 * kHeads);
  }
}

TEST_CASE("traffic of attention on tensor cores: every block reads its queries and, of keys and values, those before its last query") {
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 128;
  for (const std::size_t width : {32U, 64U, 96U, 128U}) {
    CAPTURE(width);
    DeviceArray<float> queries(random_values(kLength * kHeads * width, 1));
    std::vector<gpu::bfloat16> narrow;
    for (const float value : random_values(kLength * width, 2)) narrow.push_back(gpu::narrow(value));
    DeviceArray<gpu::bfloat16> keys(narrow);
    DeviceArray<float> result(kLength * kHeads * width);
    const auto attend = [&] {
      return gpu::attend_bf16({1, kLength, kHeads, 1, width, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
    };
    const std::size_t values = kLength * kHeads * width;
    check_traffic(traffic_of(attend), values * sizeof(float) + 2 * values * sizeof(gpu::bfloat16), values * sizeof(float));
  }
}

}  // namespace secateur::test
