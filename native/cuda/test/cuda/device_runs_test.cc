// The search with its steps on the device against the search with its steps on the CPU, on the same curves: everything is equal.
#include "cuda/device_runs.h"

#include <doctest/doctest.h>

#include <atomic>
#include <functional>

#include "cpu/allocation/host_runs.h"
#include "random_curves.h"
#include "schedules.h"

namespace secateur::test {
namespace {

constexpr float kTarget = 0.55F;

// Searches on the device, with just the memory that is planned.
AllocatedRows search_on_device(const RandomCurves& curves, const AllocationOptions& options, const std::atomic<bool>* cancelled = nullptr) {
  DeviceCurves device_curves(curves);
  MemoryBudget budget(gpu::DeviceRuns::bytes(curves.rows));
  MemoryBudget in_use(UINT64_MAX);
  gpu::SessionMemory memory(budget, in_use);
  memory.device.reserve(budget.limit_bytes(), "a search");
  gpu::Stream stream;
  gpu::Timeline timeline(stream);
  CallContext context(cancelled);
  gpu::DeviceRuns runs(device_curves.view(), kTarget, memory, stream, timeline, context);
  CHECK(in_use.used_bytes() == gpu::DeviceRuns::bytes(curves.rows));
  return allocation::search_rows(runs, kTarget, options);
}

AllocatedRows check_like_host(std::size_t rows, const AllocationOptions& options) {
  CAPTURE(rows);
  RandomCurves curves(rows, 64, static_cast<unsigned>(rows) + 1);
  const allocation::CompareOutputs compare = std::bind_front(&RandomCurves::compare, &curves);
  CallContext context;
  allocation::HostRuns host_runs(rows, curves.columns, 1, compare, {}, kTarget, context);
  const AllocatedRows expected = allocation::search_rows(host_runs, kTarget, options);
  const AllocatedRows actual = search_on_device(curves, options);
  CHECK(actual.baseline_quality == expected.baseline_quality);
  CHECK(actual.best_quality == expected.best_quality);
  CHECK(actual.learning_rate == expected.learning_rate);
  CHECK(actual.best_step == expected.best_step);
  CHECK(actual.variance_before == expected.variance_before);
  CHECK(actual.variance_after == expected.variance_after);
  CHECK(actual.row_sparsities == expected.row_sparsities);
  REQUIRE(actual.steps.size() == expected.steps.size());
  for (std::size_t i = 0; i < actual.steps.size(); ++i) {
    CHECK(actual.steps[i].learning_rate == expected.steps[i].learning_rate);
    CHECK(actual.steps[i].step == expected.steps[i].step);
    CHECK(actual.steps[i].quality == expected.steps[i].quality);
  }
  return actual;
}

}  // namespace

TEST_CASE("a search on the device equals the CPU's bit by bit") {
  in_all_schedules([] {
    for (const std::size_t rows : {1U, 31U, 32U, 33U, 257U}) check_like_host(rows, {.iterations = 3});
  });
  CHECK(check_like_host(1000, {}).learning_rate.has_value());
}

TEST_CASE("a search on the device where only negative rates bring a gain, and where none does") {
  const AllocatedRows away = check_like_host(60, {.learning_rates = {3}, .negative_learning_rates = {0.01, 0.02}});
  CHECK(away.learning_rate.value_or(3) < 0.1);
  const AllocatedRows none = check_like_host(60, {.learning_rates = {3}, .negative_learning_rates = {}});
  CHECK_FALSE(none.learning_rate.has_value());
  CHECK(none.best_quality == none.baseline_quality);
}

TEST_CASE("a search on the device with more steps than are queued at once") {
  const AllocatedRows result = check_like_host(20, {.iterations = 300, .learning_rates = {0.005}, .negative_learning_rates = {}});
  CHECK(result.steps.size() == 301);
}

TEST_CASE("a search on the device is cancelled between runs") {
  const std::atomic<bool> cancelled = true;
  const RandomCurves curves(20, 10, 3);
  try {
    search_on_device(curves, {}, &cancelled);
    FAIL("not cancelled");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kCancelled);
  }
}

}  // namespace secateur::test
