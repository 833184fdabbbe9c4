#include "cuda/kernels/search_step.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "cpu/allocation/candidate.h"
#include "cpu/allocation/search_arithmetic.h"
#include "device_array.h"
#include "random_curves.h"
#include "schedules.h"

namespace secateur::test {
namespace {

using allocation::Candidate;
using allocation::OutputProducts;

constexpr float kTarget = 0.6F;

// Scattered around the target, some where they are clipped, with equal ones.
std::vector<float> random_sparsities(std::size_t rows) {
  std::mt19937 random(9);
  std::uniform_real_distribution<float> uniform(0.2F, 1.0F);
  std::vector<float> sparsities(rows);
  for (float& sparsity : sparsities) sparsity = uniform(random);
  if (rows > 2) sparsities[2] = -0.01F;
  if (rows > 5) sparsities[5] = sparsities[4];
  return sparsities;
}

struct DeviceRows {
  explicit DeviceRows(const std::vector<float>& values)
      : sparsities(values), products(values.size()), row_qualities(values.size()), moves(values.size()), next_sparsities(values.size()) {}
  gpu::DeviceCandidate view() { return {sparsities.data(), products.data(), row_qualities.data()}; }

  DeviceArray<float> sparsities;
  DeviceArray<OutputProducts> products;
  DeviceArray<double> row_qualities;
  DeviceArray<double> moves;
  DeviceArray<float> next_sparsities;
};

void check_step(std::size_t rows, std::size_t columns, double learning_rate) {
  CAPTURE(rows);
  CAPTURE(columns);
  RandomCurves curves(rows, columns, static_cast<unsigned>(rows));
  Candidate expected{.sparsities = random_sparsities(rows), .row_qualities = {}};
  DeviceCurves device_curves(curves);
  DeviceRows device(expected.sparsities);
  DeviceArray<double> quality(1);
  DeviceArray<double> best_quality(std::vector<double>{1});
  DeviceArray<float> best_sparsities(std::vector<float>(rows, 0.125F));

  REQUIRE(gpu::measure_rows(device_curves.view(), device.view(), nullptr) == cudaSuccess);
  std::vector<std::size_t> counts(rows);
  std::ranges::transform(expected.sparsities, counts.begin(), [&](float sparsity) { return allocation::dropped_count(columns, sparsity); });
  allocation::OutputComparison outputs(rows, 1);
  curves.compare(counts, outputs);
  allocation::measure(expected, outputs, {});
  CHECK(device.row_qualities.read() == expected.row_qualities);
  CHECK(device.row_qualities.is_guarded());
  CHECK(device.products.is_guarded());

  gpu::SearchStepTask task{rows,
                           kTarget,
                           learning_rate,
                           device.view(),
                           quality.data(),
                           false,
                           best_quality.data(),
                           best_sparsities.data(),
                           device.moves.data(),
                           device.next_sparsities.data()};
  REQUIRE(gpu::move_rows(task, nullptr) == cudaSuccess);
  const std::vector<float> before = expected.sparsities;
  std::vector<double> moves(rows);
  allocation::move_sparsities(expected, learning_rate, kTarget, moves);
  CHECK(quality.read() == std::vector<double>{expected.quality});
  CHECK(device.next_sparsities.read() == expected.sparsities);
  CHECK(device.moves.read() == moves);
  CHECK(device.next_sparsities.is_guarded());
  CHECK(device.moves.is_guarded());

  // Not better than 1; then the first of all, in place.
  CHECK(best_quality.read() == std::vector<double>{1});
  CHECK(best_sparsities.read() == std::vector<float>(rows, 0.125F));
  task.is_first = true;
  task.next_sparsities = device.sparsities.data();
  REQUIRE(gpu::move_rows(task, nullptr) == cudaSuccess);
  CHECK(best_quality.read() == std::vector<double>{expected.quality});
  CHECK(best_sparsities.read() == before);
  CHECK(best_sparsities.is_guarded());
  CHECK(device.sparsities.read() == expected.sparsities);
}

}  // namespace

TEST_CASE("a step of the search equals the CPU's bit by bit") {
  in_all_schedules([] {
    // Around a warp, a tile of rows, a block's threads.
    for (const std::size_t rows : {1U, 2U, 8U, 31U, 32U, 33U, 129U, 224U, 225U, 257U, 1000U}) check_step(rows, 96, 0.04);
    check_step(40, 1, 0.16);
    check_step(300, 7, -0.02);
  });
}

TEST_CASE("a step of the search sums runs of runs of many rows") { check_step(32 * 16 * 16 * 2 + 13, 3, 0.12); }

TEST_CASE("only a candidate of higher quality takes the place of the best") {
  RandomCurves curves(40, 20, 4);
  DeviceCurves device_curves(curves);
  DeviceRows device(std::vector<float>(40, kTarget));
  DeviceArray<double> quality(1);
  DeviceArray<double> best_quality(1);
  DeviceArray<float> best_sparsities(40);
  gpu::SearchStepTask task{40,
                           kTarget,
                           0.04,
                           device.view(),
                           quality.data(),
                           true,
                           best_quality.data(),
                           best_sparsities.data(),
                           device.moves.data(),
                           device.next_sparsities.data()};
  REQUIRE(gpu::measure_rows(device_curves.view(), device.view(), nullptr) == cudaSuccess);
  REQUIRE(gpu::move_rows(task, nullptr) == cudaSuccess);
  const double reached = best_quality.read()[0];
  const auto best_after = [&](double before) {
    DeviceArray<double> best(std::vector<double>{before});
    DeviceArray<float> sparsities(std::vector<float>(40, 0.25F));
    task.is_first = false;
    task.best_quality = best.data();
    task.best_sparsities = sparsities.data();
    REQUIRE(gpu::move_rows(task, nullptr) == cudaSuccess);
    CHECK((sparsities.read()[0] == kTarget) == (before < reached));
    return best.read()[0];
  };
  CHECK(best_after(reached) == reached);
  CHECK(best_after(std::nextafter(reached, 0.0)) == reached);
  CHECK(best_after(std::nextafter(reached, 1.0)) == std::nextafter(reached, 1.0));
}

TEST_CASE("a step of the search of no rows does nothing") {
  CHECK(gpu::measure_rows({0, 5, nullptr, nullptr}, {nullptr, nullptr, nullptr}, nullptr) == cudaSuccess);
  CHECK(gpu::move_rows({}, nullptr) == cudaSuccess);
}

}  // namespace secateur::test
