#include "common/sketch_signs.h"

#include <doctest/doctest.h>

#include <bit>
#include <cstdlib>
#include <set>

using namespace secateur;

TEST_CASE("signs stay what they are: results are compared with those of other versions") {
  CHECK(sketch_signs({.group = 0, .sample = 0, .sketch = 0}, 0) == 0x2130748aaac80268U);
  CHECK(sketch_signs({.group = 5, .sample = 3, .sketch = 1}, 7) == 0xde63a22b2bfe14b0U);
}

TEST_CASE("every place has signs of its own, as many of one kind as of the other, that agree with those of no other place") {
  std::set<std::uint64_t> seen;
  std::uint64_t before = 0;
  int negative = 0;
  int agreeing = 0;
  constexpr int kGroups = 16;
  constexpr int kWords = kGroups * 8 * 4 * 4;
  for (std::uint32_t group = 0; group < kGroups; ++group) {
    for (std::size_t sample = 0; sample < 8; ++sample) {
      for (std::size_t sketch = 0; sketch < 4; ++sketch) {
        for (std::size_t word = 0; word < 4; ++word) {
          const std::uint64_t signs = sketch_signs({.group = group, .sample = sample, .sketch = sketch}, word);
          seen.insert(signs);
          negative += std::popcount(signs);
          agreeing += std::popcount(~(signs ^ before));
          before = signs;
        }
      }
    }
  }
  CHECK(seen.size() == kWords);
  // Five standard deviations of fair coins.
  constexpr int kSigns = kWords * 64;
  constexpr int kTolerance = 905;
  CHECK(std::abs(negative - kSigns / 2) < kTolerance);
  CHECK(std::abs(agreeing - kSigns / 2) < kTolerance);
}
