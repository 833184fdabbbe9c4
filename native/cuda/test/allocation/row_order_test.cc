#include "cpu/allocation/row_order.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace secateur::test {
namespace {

std::vector<std::uint32_t> keys_of(const std::vector<float>& scores) {
  std::vector<std::uint32_t> keys;
  for (const float score : scores) keys.push_back(std::bit_cast<std::uint32_t>(score));
  return keys;
}

// Sorted as a whole and in parts, and what is marked.
void check_order(const std::vector<float>& scores) {
  const std::size_t columns = scores.size();
  const std::vector<std::uint32_t> keys = keys_of(scores);
  std::vector<std::uint32_t> expected(columns);
  std::iota(expected.begin(), expected.end(), 0U);
  std::ranges::stable_sort(expected, {}, [&](std::uint32_t column) { return scores[column]; });

  allocation::RowOrders::Scratch scratch(columns);
  const allocation::RowScores row{.weights = scores.data(), .columns = columns};
  for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    CAPTURE(cpu::name_of(instruction_set));
    allocation::RowOrders orders(2, columns, allocation::row_scan_functions(instruction_set));
    orders.group(1, keys, scratch);
    std::vector<std::uint32_t> order(columns);
    for (const std::size_t first : {std::size_t{0}, columns / 3, columns - 1}) {
      for (const std::size_t last : {columns / 2, columns}) {
        if (last < first) continue;
        const std::span<std::uint32_t> part = std::span(order).first(last - first);
        orders.load_upwards(1, row, first, part, scratch);
        CHECK(std::ranges::equal(part, std::span(expected).subspan(first, last - first)));
        orders.load_downwards(1, row, last, part, scratch);
        std::ranges::reverse(part);
        CHECK(std::ranges::equal(part, std::span(expected).subspan(first, last - first)));
      }
    }
    for (const std::size_t place : {std::size_t{0}, columns / 3, columns / 2, columns * 7 / 8, columns}) {
      CAPTURE(place);
      const auto check_set = [](std::span<std::uint32_t> found, std::span<const std::uint32_t> wanted) {
        std::vector<std::uint32_t> sorted(wanted.begin(), wanted.end());
        std::ranges::sort(sorted);
        std::ranges::sort(found);
        CHECK(std::ranges::equal(found, sorted));
      };
      const std::span<std::uint32_t> before = std::span(order).first(place);
      orders.load_before(1, row, place, before, scratch);
      check_set(before, std::span(expected).first(place));
      const std::span<std::uint32_t> from = std::span(order).first(columns - place);
      orders.load_from(1, row, place, from, scratch);
      check_set(from, std::span(expected).subspan(place));

      std::vector<std::uint8_t> bits((columns + 7) / 8, 0xff);
      orders.mark_before(1, row, place, bits, scratch);
      std::vector<std::uint8_t> expected_bits(bits.size());
      for (const std::size_t column : std::span(expected).first(place)) {
        expected_bits[column / 8] = static_cast<std::uint8_t>(expected_bits[column / 8] | 1U << column % 8);
      }
      CHECK(bits == expected_bits);
    }
  }
}

}  // namespace

TEST_CASE("RowOrders orders stably, whatever the scores look like") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const std::size_t columns : {std::size_t{1}, std::size_t{2}, std::size_t{15}, std::size_t{16}, std::size_t{100}, std::size_t{1031},
                                    std::size_t{5000}, std::size_t{65535}, std::size_t{65536}}) {
    CAPTURE(columns);
    std::vector<float> scores(columns);
    for (float& score : scores) score = std::abs(normal(random));
    check_order(scores);
    // One outlier that squeezes all others into one radix bucket.
    std::vector<float> outlier = scores;
    outlier[columns / 2] = 1e30F;
    check_order(outlier);
    outlier[columns / 2] = std::numeric_limits<float>::infinity();
    check_order(outlier);
    // Few distinct values, zeros among them.
    std::vector<float> ties(columns);
    for (float& score : ties) score = static_cast<float>(random() % 5);
    check_order(ties);
    check_order(std::vector<float>(columns, 0.0F));
    // Some more in each bucket than are compared with one another, and some less.
    for (const std::size_t values : {columns / 80 + 1, columns / 40 + 1}) {
      std::vector<float> close(columns);
      for (float& score : close) score = static_cast<float>(1 + random() % values) + 1e-4F * std::abs(normal(random));
      check_order(close);
    }
    // Too small for buckets by their logarithm.
    std::vector<float> tiny(columns);
    for (float& score : tiny) score = std::bit_cast<float>(static_cast<std::uint32_t>(random() % 1000));
    check_order(tiny);
    std::vector<float> descending(columns);
    for (std::size_t j = 0; j < columns; ++j) descending[j] = static_cast<float>(columns - j) + 1e7F;
    check_order(descending);
  }
}

TEST_CASE("score_row names the first weight that is not finite") {
  for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    CAPTURE(cpu::name_of(instruction_set));
    const allocation::RowScanFunctions functions = allocation::row_scan_functions(instruction_set);
    // Less than a vector, and a few with some columns more.
    for (const std::size_t columns : {std::size_t{4}, std::size_t{37}}) {
      CAPTURE(columns);
      std::vector<float> weights(columns);
      std::vector<float> scales(columns);
      std::vector<float> scores(columns);
      std::vector<float> unscaled(columns);
      for (std::size_t j = 0; j < columns; ++j) {
        weights[j] = j % 2 == 0 ? static_cast<float>(j) : -static_cast<float>(j);
        scales[j] = static_cast<float>(j % 3);
        scores[j] = static_cast<float>(j) * scales[j];
        unscaled[j] = static_cast<float>(j);
      }
      const allocation::RowScores without_scales{.weights = weights.data(), .columns = columns};
      const allocation::RowScores row{.weights = weights.data(), .scales = scales.data(), .columns = columns};
      std::vector<std::uint32_t> keys(columns);
      CHECK(allocation::score_row(functions, row, keys) == columns);
      CHECK(keys == keys_of(scores));
      CHECK(allocation::score_row(functions, without_scales, keys) == columns);
      CHECK(keys == keys_of(unscaled));
      for (std::size_t column = columns; column-- > 0;) {
        weights[column] = column % 2 == 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
        CHECK(allocation::score_row(functions, row, keys) == column);
        CHECK(allocation::score_row(functions, without_scales, keys) == column);
      }
    }
  }
}

TEST_CASE("RowOrders counts in two or four bytes") {
  CHECK(allocation::RowOrders::scratch_bytes(2, 9) == 2 * (4 + (2 + 64) * 2));
  CHECK(allocation::RowOrders::scratch_bytes(2, 65535) == 2 * (4 + (256 + 8192) * 2));
  CHECK(allocation::RowOrders::scratch_bytes(2, 65536) == 2 * (4 + (256 + 8192) * 4));
}

}  // namespace secateur::test
