#include "cpu/repair/lowest.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace secateur::cpu {

namespace {

constexpr std::size_t kChunk = std::size_t{1} << 18;
constexpr std::size_t kMarkedRows = 64;
constexpr std::size_t kHalf = std::size_t{1} << 16;

// How many values have each of the 2^16 digits; digit_of gives kHalf for those that do not count.
template <class DigitOf>
std::vector<std::size_t> count_digits(std::span<const float> values, ThreadPool& pool, DigitOf digit_of) {
  std::vector<std::vector<std::size_t>> counts(pool.size());
  pool.parallel_for((values.size() + kChunk - 1) / kChunk, [&](std::size_t chunk, std::size_t worker) {
    std::vector<std::size_t>& own = counts[worker];
    own.resize(kHalf + 1);
    for (const float value : values.subspan(chunk * kChunk, std::min(kChunk, values.size() - chunk * kChunk)))
      ++own[digit_of(magnitude_bits(value))];
  });
  std::vector<std::size_t> total(kHalf + 1);
  for (const std::vector<std::size_t>& own : counts) {
    for (std::size_t digit = 0; digit < own.size(); ++digit) total[digit] += own[digit];
  }
  return total;
}

// The digit of the count-th lowest; `count` becomes how many of that digit are among the lowest.
std::uint32_t find_digit(const std::vector<std::size_t>& counts, std::size_t& count) {
  std::uint32_t digit = 0;
  while (digit + 1 < kHalf && count > counts[digit]) count -= counts[digit++];
  return digit;
}

}  // namespace

LowestMagnitudes find_lowest(std::span<const float> values, std::size_t count, ThreadPool& pool) {
  if (count == 0) return {};
  const std::uint32_t high = find_digit(count_digits(values, pool, [](std::uint32_t bits) { return std::size_t{bits >> 16}; }), count);
  const std::uint32_t low = find_digit(
      count_digits(values, pool, [&](std::uint32_t bits) { return bits >> 16 == high ? std::size_t{bits & 0xffffU} : kHalf; }), count);
  return {high << 16 | low, count};
}

void mark_lowest(std::span<const float> values, std::size_t columns, const LowestMagnitudes& lowest, ThreadPool& pool, std::uint8_t* mask) {
  const std::size_t rows = values.size() / columns;
  const std::size_t mask_bytes = (columns + 7) / 8;
  const std::size_t panels = (rows + kMarkedRows - 1) / kMarkedRows;
  const auto rows_of = [&](std::size_t panel) {
    return values.subspan(panel * kMarkedRows * columns, std::min(kMarkedRows, rows - panel * kMarkedRows) * columns);
  };
  // Equal ones that panels before have.
  std::vector<std::size_t> equal_before(panels + 1);
  pool.parallel_for(panels, [&](std::size_t panel, std::size_t) {
    equal_before[panel + 1] = static_cast<std::size_t>(
        std::ranges::count_if(rows_of(panel), [&](float value) { return magnitude_bits(value) == lowest.threshold; }));
  });
  for (std::size_t panel = 0; panel < panels; ++panel) equal_before[panel + 1] += equal_before[panel];
  pool.parallel_for(panels, [&](std::size_t panel, std::size_t) {
    std::size_t equal = equal_before[panel];
    const std::span<const float> own = rows_of(panel);
    std::uint8_t* const bits = mask + panel * kMarkedRows * mask_bytes;
    std::memset(bits, 0, own.size() / columns * mask_bytes);
    for (std::size_t row = 0; row < own.size() / columns; ++row) {
      for (std::size_t column = 0; column < columns; ++column) {
        const std::uint32_t magnitude = magnitude_bits(own[row * columns + column]);
        const bool is_dropped = magnitude < lowest.threshold || (magnitude == lowest.threshold && equal++ < lowest.equal);
        if (is_dropped) bits[row * mask_bytes + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
      }
    }
  });
}

}  // namespace secateur::cpu
