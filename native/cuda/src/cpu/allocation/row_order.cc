#include "row_order.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

namespace secateur::allocation {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7f80'0000U;

constexpr bool is_narrow(std::size_t columns) { return columns <= std::size_t{1} << 16U; }

// One stable pass of a radix sort: from → to, by the `digit`-th group of Bits bits of rank(entry).
template <std::size_t Bits, class Rank>
void distribute(std::span<const std::uint64_t> from, std::span<std::uint64_t> to, std::size_t digit, Rank rank) {
  constexpr std::uint32_t kMask = (1U << Bits) - 1;
  std::array<std::uint32_t, std::size_t{1} << Bits> starts{};
  const auto bucket_of = [&](std::uint64_t entry) { return (rank(entry) >> (digit * Bits)) & kMask; };
  for (const std::uint64_t entry : from) ++starts[bucket_of(entry)];
  std::uint32_t start = 0;
  for (std::uint32_t& bucket : starts) start += std::exchange(bucket, start);
  for (const std::uint64_t entry : from) to[starts[bucket_of(entry)]++] = entry;
}

std::uint32_t key_of(std::uint64_t entry) { return static_cast<std::uint32_t>(entry >> 32U); }

// Sorts what is nearly sorted; gives up when that takes more than `budget` moves, leaving some other order of the same entries.
bool insertion_sort(std::span<std::uint64_t> entries, std::size_t budget) {
  for (std::size_t j = 1; j < entries.size(); ++j) {
    const std::uint64_t entry = entries[j];
    std::size_t place = j;
    for (; place > 0 && entries[place - 1] > entry; --place) entries[place] = entries[place - 1];
    entries[place] = entry;
    if (j - place > budget) return false;
    budget -= j - place;
  }
  return true;
}

template <class Column>
void mark(const Column* order, std::size_t count, std::span<std::uint8_t> bits) {
  for (std::size_t j = 0; j < count; ++j) {
    std::uint8_t& byte = bits[order[j] / 8U];
    byte = static_cast<std::uint8_t>(byte | (1U << (order[j] % 8U)));
  }
}

}  // namespace

std::size_t score_row(std::span<const float> weights, std::span<const float> scales, std::span<std::uint32_t> keys) {
  const std::size_t columns = weights.size();
  std::uint32_t largest = 0;
  for (std::size_t j = 0; j < columns; ++j) {
    const float magnitude = std::fabs(weights[j]);
    largest = std::max(largest, std::bit_cast<std::uint32_t>(magnitude));
    keys[j] = std::bit_cast<std::uint32_t>(magnitude);
  }
  if (largest >= kInfinityBits) {
    return static_cast<std::size_t>(std::ranges::find_if(keys, [](std::uint32_t key) { return key >= kInfinityBits; }) - keys.begin());
  }
  for (std::size_t j = 0; j < scales.size(); ++j) keys[j] = std::bit_cast<std::uint32_t>(std::bit_cast<float>(keys[j]) * scales[j]);
  return columns;
}

RowSorter::RowSorter(std::size_t columns) : from_(columns), to_(columns) {}

std::uint64_t RowSorter::scratch_bytes(std::size_t columns) { return 2 * columns * sizeof(std::uint64_t); }

// Entries are distinct and their order is that of (key, column), so any sort of them is the stable sort of the keys.
// Two radix passes over the upper bits of the keys, from 2^-32 of the largest score up, leave few entries out of place: those that differ
// by less than 2^-15 of their value or are smaller still. Where they leave many, passes over the whole keys sort from scratch.
void RowSorter::sort(std::span<const std::uint32_t> keys, std::span<std::uint32_t> order) {
  constexpr std::uint32_t kCoarseBits = 10;
  constexpr std::size_t kExactBits = 8;
  std::uint32_t largest = 0;
  for (std::size_t j = 0; j < keys.size(); ++j) {
    from_[j] = std::uint64_t{keys[j]} << 32U | j;
    largest = std::max(largest, keys[j]);
  }
  constexpr std::uint32_t kOctaves = 32;
  constexpr std::uint32_t kMantissaBits = 23;
  constexpr std::uint32_t kRange = (kOctaves << kMantissaBits) - 1;
  constexpr std::uint32_t kSkippedBits = std::bit_width(kRange) - 2 * kCoarseBits;
  const std::uint32_t smallest = largest > kRange ? largest - kRange : 0;
  const auto coarse = [&](std::uint64_t entry) {
    const std::uint32_t key = key_of(entry);
    return key > smallest ? (key - smallest) >> kSkippedBits : 0;
  };
  distribute<kCoarseBits>(from_, to_, 0, coarse);
  distribute<kCoarseBits>(to_, from_, 1, coarse);
  if (!insertion_sort(from_, 4 * from_.size())) {
    for (std::size_t digit = 0; digit < 64 / kExactBits; ++digit) {
      distribute<kExactBits>(from_, to_, digit, [](std::uint64_t entry) { return entry; });
      from_.swap(to_);
    }
  }
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<std::uint32_t>(from_[j]);
}

RowOrders::RowOrders(std::size_t rows, std::size_t columns) : columns_(columns) {
  if (is_narrow(columns)) {
    narrow_ = std::make_unique_for_overwrite<std::uint16_t[]>(rows * columns);
  } else {
    wide_ = std::make_unique_for_overwrite<std::uint32_t[]>(rows * columns);
  }
}

std::uint64_t RowOrders::scratch_bytes(std::size_t rows, std::size_t columns) {
  return rows * columns * (is_narrow(columns) ? sizeof(std::uint16_t) : sizeof(std::uint32_t));
}

void RowOrders::store(std::size_t row, std::span<const std::uint32_t> order) {
  const std::size_t begin = row * columns_;
  if (narrow_) {
    for (std::size_t j = 0; j < columns_; ++j) narrow_[begin + j] = static_cast<std::uint16_t>(order[j]);
  } else {
    std::ranges::copy(order, &wide_[begin]);
  }
}

void RowOrders::load_from_low(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const {
  const std::size_t begin = row * columns_ + first;
  for (std::size_t j = 0; j < columns.size(); ++j) columns[j] = narrow_ ? narrow_[begin + j] : wide_[begin + j];
}

void RowOrders::load_from_high(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const {
  const std::size_t last = (row + 1) * columns_ - 1 - first;
  for (std::size_t j = 0; j < columns.size(); ++j) columns[j] = narrow_ ? narrow_[last - j] : wide_[last - j];
}

void RowOrders::mark_first(std::size_t row, std::size_t count, std::span<std::uint8_t> bits) const {
  if (narrow_) {
    mark(&narrow_[row * columns_], count, bits);
  } else {
    mark(&wide_[row * columns_], count, bits);
  }
}

}  // namespace secateur::allocation
