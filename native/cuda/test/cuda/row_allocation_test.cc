#include "cuda/row_allocation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "allocation/fixtures.h"
#include "cuda/host_work.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

struct Projection {
  Projection(std::size_t rows, std::size_t columns, std::size_t samples)
      : weights(random_values(rows * columns, 5)),
        mean_squares(random_values(columns, 6)),
        quality_inputs(random_values(samples * columns, 7)),
        input{.rows = rows,
              .columns = columns,
              .samples = samples,
              .weights = weights,
              .mean_squares = mean_squares,
              .quality_inputs = quality_inputs,
              .target_sparsity = 0.6} {
    // Rows of unequal size, equal weights and a dead input.
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] *= 1.0F + 0.1F * static_cast<float>(i / columns);
    weights[1] = weights[0];
    for (float& mean_square : mean_squares) mean_square *= mean_square;
    mean_squares[columns / 2] = 0;
  }

  std::vector<float> weights;
  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;
  AllocationInput input;
};

// With just the memory that is planned.
AllocatedRows allocate_on_device(const AllocationInput& input, const AllocationOptions& options) {
  MemoryBudget budget(gpu::allocation_bytes(input.rows, input.columns, input.samples, options));
  MemoryBudget in_use(std::numeric_limits<std::uint64_t>::max());
  gpu::SessionMemory memory(budget, in_use);
  memory.device.reserve(budget.limit_bytes(), "an allocation");
  gpu::Stream stream;
  gpu::Timeline timeline(stream);
  CallContext context;
  ThreadPool pool(1);
  DeviceArray<float> weights(std::vector<float>(input.weights.begin(), input.weights.end()));
  AllocatedRows result = gpu::allocate_rows(input, weights.data(), options, memory, pool, stream, timeline, context);
  CHECK(in_use.used_bytes() == 0);
  return result;
}

void check_like_cpu(const Projection& projection, const AllocationOptions& options) {
  CAPTURE(projection.input.rows);
  CAPTURE(projection.input.columns);
  CAPTURE(projection.input.samples);
  ThreadPool pool(1);
  CallContext context;
  const AllocatedRows expected = allocate_rows(projection.input, options, pool, context);
  const AllocatedRows actual = allocate_on_device(projection.input, options);
  CHECK(actual.learning_rate == expected.learning_rate);
  CHECK(actual.best_step == expected.best_step);
  CHECK(actual.dropped_per_row == expected.dropped_per_row);
  CHECK(actual.mask == expected.mask);
  REQUIRE(actual.steps.size() == expected.steps.size());
  // Points of curves are float32, and so are dense outputs, whose sums are in another order.
  for (std::size_t i = 0; i < actual.steps.size(); ++i) {
    const double quality = expected.steps[i].quality;
    CHECK(std::abs(actual.steps[i].quality - quality) < 1e-6 * std::max(1.0, std::abs(quality)));
  }
  CHECK(std::abs(actual.variance_after - expected.variance_after) < 1e-6);
}

}  // namespace

TEST_CASE("row allocation on the device takes the published code's decisions") {
  for (const TrimCase& one : load_trim_cases(SECATEUR_TRIM_FIXTURES)) {
    if (!gpu::runs_on_device(one.options())) continue;
    CAPTURE(one.file);
    const AllocatedRows result = allocate_on_device(one.input(), one.options());
    CHECK(result.learning_rate == one.learning_rate);
    CHECK(result.best_step.value_or(0) == one.best_step);
    CHECK(result.dropped_per_row == one.dropped_per_row);
    CHECK(result.mask == one.mask);
  }
}

TEST_CASE("row allocation on the device decides as on the CPU") {
  in_all_schedules([] {
    check_like_cpu(Projection(7, 33, 5), {});
    check_like_cpu(Projection(16, 48, 130), {.score = Score::kMagnitude});
    check_like_cpu(Projection(9, 40, 3), {.allocation = Allocation::kUniform});
  });
}

TEST_CASE("row allocation on the device decides by every metric that curves give as on the CPU") {
  in_all_schedules([] {
    const Projection projection(7, 33, 5);
    for (const LayerQuality layer : {LayerQuality::kCosimDim, LayerQuality::kMse, LayerQuality::kMseDim, LayerQuality::kSnr,
                                     LayerQuality::kPsnrFlat, LayerQuality::kPsnrDim, LayerQuality::kPass}) {
      CAPTURE(static_cast<int>(layer));
      check_like_cpu(projection, {.layer_quality = layer});
    }
    for (const RowQuality row : {RowQuality::kMse, RowQuality::kPsnr}) {
      CAPTURE(static_cast<int>(row));
      check_like_cpu(projection, {.row_quality = row});
      check_like_cpu(projection, {.layer_quality = LayerQuality::kPsnrDim, .row_quality = row});
    }
  });
}

TEST_CASE("row allocation on the device resolves the decibels of small errors") {
  Projection projection(6, 40, 4);
  projection.input.target_sparsity = 0.05;
  check_like_cpu(projection, {.layer_quality = LayerQuality::kSnr, .row_quality = RowQuality::kPsnr});
}

TEST_CASE("row allocation on the device takes more samples than a warp holds") { check_like_cpu(Projection(6, 24, 1100), {}); }

}  // namespace secateur::test
