#include "row_order.h"

#include <algorithm>
#include <utility>

namespace secateur::allocation {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7f80'0000U;

// Buckets divide the keys from 2^-16 of the largest up evenly in their logarithm (nearly: by bits); what is smaller shares the first.
constexpr std::uint32_t kMantissaBits = 23;
constexpr std::uint32_t kKeyRange = (16U << kMantissaBits) - 1;

constexpr bool is_narrow(std::size_t columns) { return columns <= std::size_t{1} << 16U; }

// As many buckets as leave a few columns in each where they are the most.
constexpr std::uint32_t bucket_bits(std::size_t columns) {
  return std::clamp(static_cast<std::uint32_t>(std::bit_width(columns)) - 1, 6U, 13U);
}

// Columns in one bucket from which on a row is sorted at once: its scores are too much alike, or too far apart, for the buckets.
constexpr std::size_t crowd(std::size_t columns) { return 64 + columns / 16; }

struct Buckets {
  // What is not above this is in the first bucket.
  std::uint32_t smallest;
  std::uint32_t shift;

  std::uint32_t of(std::uint32_t key) const { return (std::max(key, smallest) - smallest) >> shift; }
};

std::uint64_t entry_of(std::uint32_t key, std::size_t column) { return std::uint64_t{key} << 32U | column; }

// Entries are distinct and their order is that of (key, column), so any sort of them is the stable sort of the keys.
void sort_entries(std::span<std::uint64_t> entries) {
  std::size_t budget = 8 * entries.size();
  for (std::size_t j = 1; j < entries.size(); ++j) {
    const std::uint64_t entry = entries[j];
    std::size_t place = j;
    for (; place > 0 && entries[place - 1] > entry; --place) entries[place] = entries[place - 1];
    entries[place] = entry;
    if (j - place > budget) {
      std::ranges::sort(entries);
      return;
    }
    budget -= j - place;
  }
}

}  // namespace

std::size_t score_row(std::span<const float> weights, std::span<const float> scales, std::span<std::uint32_t> keys) {
  const std::size_t columns = weights.size();
  std::uint32_t largest = 0;
  for (std::size_t j = 0; j < columns; ++j) {
    keys[j] = score_key(weights[j]);
    largest = std::max(largest, keys[j]);
  }
  if (largest >= kInfinityBits) {
    return static_cast<std::size_t>(std::ranges::find_if(keys, [](std::uint32_t key) { return key >= kInfinityBits; }) - keys.begin());
  }
  for (std::size_t j = 0; j < scales.size(); ++j) keys[j] = score_key(weights[j], scales[j]);
  return columns;
}

RowOrders::Scratch::Scratch(std::size_t columns)
    : buckets_(columns), bucket_starts_(std::size_t{1} << bucket_bits(columns)), entries_(columns) {}

std::uint64_t RowOrders::Scratch::bytes(std::size_t columns) {
  return (std::size_t{1} << bucket_bits(columns)) * sizeof(std::uint32_t) + columns * (sizeof(std::uint16_t) + sizeof(std::uint64_t));
}

RowOrders::RowOrders(std::size_t rows, std::size_t columns)
    : columns_(columns), bucket_shift_(static_cast<std::uint32_t>(std::bit_width(kKeyRange)) - bucket_bits(columns)), smallest_keys_(rows) {
  if (is_narrow(columns)) {
    narrow_ = std::make_unique_for_overwrite<std::uint16_t[]>(rows * columns);
  } else {
    wide_ = std::make_unique_for_overwrite<std::uint32_t[]>(rows * columns);
  }
}

std::uint64_t RowOrders::scratch_bytes(std::size_t rows, std::size_t columns) {
  return rows * (sizeof(std::uint32_t) + columns * (is_narrow(columns) ? sizeof(std::uint16_t) : sizeof(std::uint32_t)));
}

template <class Visit>
void RowOrders::visit_row(std::size_t row, Visit visit) const {
  if (narrow_) {
    visit(std::span(&narrow_[row * columns_], columns_));
  } else {
    visit(std::span(&wide_[row * columns_], columns_));
  }
}

void RowOrders::group(std::size_t row, std::span<const std::uint32_t> keys, Scratch& scratch) {
  std::uint32_t largest = 0;
  for (const std::uint32_t key : keys) largest = std::max(largest, key);
  const Buckets buckets{.smallest = largest > kKeyRange ? largest - kKeyRange : 0, .shift = bucket_shift_};
  smallest_keys_[row] = buckets.smallest;
  std::uint16_t* const bucket_of = scratch.buckets_.data();
  for (std::size_t j = 0; j < keys.size(); ++j) bucket_of[j] = static_cast<std::uint16_t>(buckets.of(keys[j]));

  std::uint32_t* const starts = scratch.bucket_starts_.data();
  std::ranges::fill(scratch.bucket_starts_, 0U);
  for (std::size_t j = 0; j < keys.size(); ++j) ++starts[bucket_of[j]];
  std::uint32_t start = 0;
  std::uint32_t most = 0;
  for (std::uint32_t& bucket : scratch.bucket_starts_) {
    most = std::max(most, bucket);
    start += std::exchange(bucket, start);
  }
  visit_row(row, [&]<class Column>(std::span<Column> order) {
    for (std::size_t j = 0; j < keys.size(); ++j) order[starts[bucket_of[j]]++] = static_cast<Column>(j);
    if (most <= crowd(columns_)) return;
    for (std::size_t j = 0; j < keys.size(); ++j) scratch.entries_[j] = entry_of(keys[order[j]], order[j]);
    sort_entries(scratch.entries_);
    for (std::size_t j = 0; j < keys.size(); ++j) order[j] = static_cast<Column>(scratch.entries_[j]);
  });
}

void RowOrders::sort(std::size_t row, std::size_t first, std::size_t last, const RowScores& scores, Scratch& scratch) {
  if (first >= last) return;
  visit_row(row, [&]<class Column>(std::span<Column> order) {
    const Buckets buckets{.smallest = smallest_keys_[row], .shift = bucket_shift_};
    const auto bucket_at = [&](std::size_t place) { return buckets.of(scores.key(order[place])); };
    for (const std::uint32_t bucket = bucket_at(first); first > 0 && bucket_at(first - 1) == bucket;) --first;
    for (const std::uint32_t bucket = bucket_at(last - 1); last < columns_ && bucket_at(last) == bucket;) ++last;
    const std::span<Column> part = order.subspan(first, last - first);
    const std::span<std::uint64_t> entries = std::span(scratch.entries_).first(part.size());
    for (std::size_t j = 0; j < part.size(); ++j) entries[j] = entry_of(scores.key(part[j]), part[j]);
    sort_entries(entries);
    for (std::size_t j = 0; j < part.size(); ++j) part[j] = static_cast<Column>(entries[j]);
  });
}

void RowOrders::load_upwards(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const {
  visit_row(row, [&](auto order) { std::ranges::copy(order.subspan(first, columns.size()), columns.begin()); });
}

void RowOrders::load_downwards(std::size_t row, std::size_t first, std::span<std::uint32_t> columns) const {
  visit_row(row, [&](auto order) { std::ranges::reverse_copy(order.subspan(first - columns.size(), columns.size()), columns.begin()); });
}

void RowOrders::mark_first(std::size_t row, std::size_t count, std::span<std::uint8_t> bits) const {
  visit_row(row, [&](auto order) {
    const auto flip = [&](auto columns) {
      for (const std::size_t column : columns) bits[column / 8] ^= static_cast<std::uint8_t>(1U << column % 8);
    };
    if (count <= columns_ / 2) {
      flip(order.first(count));
    } else {
      std::ranges::fill(bits, std::uint8_t{0xff});
      if (columns_ % 8 != 0) bits.back() = static_cast<std::uint8_t>((1U << columns_ % 8) - 1);
      flip(order.subspan(count));
    }
  });
}

}  // namespace secateur::allocation
