#include "cpu/repair/lowest.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cuda/random_values.h"

namespace secateur::test {

TEST_CASE("the lowest magnitudes of a matrix, of equal ones the first") {
  ThreadPool one(1);
  ThreadPool three(3);
  for (const std::size_t columns : {1U, 9U, 700U}) {
    constexpr std::size_t kRows = 150;
    std::vector<float> values = random_values(kRows * columns, 3);
    // Many are equal, in magnitude at least.
    for (std::size_t i = 0; i < values.size(); i += 3) values[i] = std::round(values[i]);
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return std::abs(values[i]); });
    const std::size_t mask_bytes = (columns + 7) / 8;
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, values.size() / 5, values.size() / 2, values.size()}) {
      CAPTURE(columns);
      CAPTURE(count);
      std::vector<std::uint8_t> expected(kRows * mask_bytes);
      for (std::size_t i = 0; i < count; ++i) {
        expected[order[i] / columns * mask_bytes + order[i] % columns / 8] |= static_cast<std::uint8_t>(1U << order[i] % columns % 8);
      }
      for (ThreadPool* pool : {&one, &three}) {
        std::vector<std::uint8_t> mask(kRows * mask_bytes, 0xff);
        cpu::mark_lowest(values, columns, cpu::find_lowest(values, count, *pool), *pool, mask.data());
        CHECK(mask == expected);
      }
    }
  }
}

}  // namespace secateur::test
