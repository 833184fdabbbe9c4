#include "cuda/kernels/lowest_scores.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kRows = 3;
constexpr std::size_t kThreads = 256;
constexpr std::size_t kDigits = 4;
// A part of the rows is one.
constexpr std::size_t kCounts = kRows * gpu::kDigitValues;

TrafficModel& read_scores(TrafficModel& model, std::size_t columns) {
  for (std::size_t row = 0; row < kRows; ++row) model.read_run<float>(row * columns, columns).read_run<float>(0, columns);
  return model;
}

// The scores once for every digit, and once for those that are equal to the highest of the lowest.
TrafficModel finding(std::size_t columns) {
  TrafficModel model;
  for (std::size_t digit = 0; digit < kDigits; ++digit) {
    for (std::size_t part = 0; part < kRows; ++part) model.read_same<std::uint32_t>(kThreads);
    read_scores(model, columns).write_run<std::uint32_t>(0, kCounts);
    // One block chooses the digit, one of its threads writes it down with what is left.
    model.read_run<std::uint32_t>(0, kCounts).read_same<std::uint32_t>(1).write_one<std::uint32_t>().write_one<std::uint64_t>();
    if (digit > 0) model.read_same<std::uint64_t>(1);
  }
  for (std::size_t row = 0; row < kRows; ++row) model.read_same<std::uint32_t>(kThreads).write_one<std::uint32_t>();
  return read_scores(model, columns);
}

}  // namespace

TEST_CASE("traffic of the lowest scores: the weights and their scales once for every digit, and once to drop them") {
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    // One score for all: its digits are counted in one place, which no two banks share. What the hardware does to updates of the same word,
    // one after the other, is not counted.
    DeviceArray<float> weights(std::vector<float>(kRows * columns, 1.0F));
    DeviceArray<float> scales(std::vector<float>(columns, 1.0F));
    const gpu::ScoredWeights scored{kRows, columns, weights.data(), scales.data()};
    DeviceArray<std::uint32_t> digits(gpu::kDigitParts * gpu::kDigitValues);
    DeviceArray<std::uint64_t> left(1);
    DeviceArray<std::uint32_t> key(1);
    DeviceArray<std::uint32_t> equal(kRows);
    const gpu::LowestScores lowest{digits.data(), left.data(), key.data(), equal.data()};
    const auto find = [&](gpu::EqualScores which) { return gpu::find_lowest(scored, columns, which, lowest, nullptr); };
    check_traffic(traffic_of([&] { return find(gpu::EqualScores::kAll); }), finding(columns));

    TrafficModel shared = finding(columns);
    shared.read_run<std::uint32_t>(0, kRows).read_same<std::uint64_t>(kThreads);
    // A thread has one of so few rows.
    shared.read_run<std::uint32_t>(0, kRows).write_run<std::uint32_t>(0, kRows);
    check_traffic(traffic_of([&] { return find(gpu::EqualScores::kFirst); }), shared);

    DeviceArray<float> rest(kRows * columns);
    DeviceArray<std::uint8_t> mask(kRows * ((columns + 7) / 8));
    TrafficModel dropped;
    TrafficModel marked;
    for (TrafficModel* const model : {&dropped, &marked}) {
      read_scores(*model, columns);
      for (std::size_t row = 0; row < kRows; ++row) model->read_same<std::uint32_t>(kThreads).read_same<std::uint32_t>(kThreads);
    }
    for (std::size_t row = 0; row < kRows; ++row) {
      dropped.write_run<float>(row * columns, columns);
      write_mask_row(marked, row * ((columns + 7) / 8), (columns + 7) / 8);
    }
    check_traffic(traffic_of([&] { return gpu::drop_lowest(scored, lowest, rest.data(), nullptr); }), dropped);
    check_traffic(traffic_of([&] { return gpu::mark_lowest(scored, lowest, mask.data(), nullptr); }), marked);
  }
}

}  // namespace secateur::test
