#include "row_order.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace secateur::allocation {
namespace {

constexpr std::uint32_t kInfinityBits = 0x7f80'0000U;

// Buckets divide the keys from 2^-16 of the largest up evenly in their logarithm (nearly: by bits); what is smaller shares the first.
constexpr std::uint32_t kMantissaBits = 23;
constexpr std::uint32_t kKeyRange = (16U << kMantissaBits) - 1;

constexpr bool is_narrow(std::size_t columns) { return columns < std::size_t{1} << 16U; }

// As many buckets as leave a few columns in each where they are the most.
constexpr std::uint32_t bucket_bits(std::size_t columns) {
  return std::clamp(static_cast<std::uint32_t>(std::bit_width(columns)) - 2, 6U, 13U);
}
constexpr std::size_t bucket_count(std::size_t columns) { return std::size_t{1} << bucket_bits(columns); }

// The places of a group of buckets lie in a line or two of the cache, so that one is found by looking at few lines.
constexpr std::size_t kGroupBuckets = 32;
constexpr std::size_t groups(std::size_t buckets) { return buckets / kGroupBuckets; }
constexpr std::size_t places_per_row(std::size_t buckets) { return groups(buckets) + buckets; }

// How many of the ascending values are at most `limit`. Looks at all of them, which needs no branch that nobody could predict.
template <class Value>
std::size_t count_up_to(const Value* values, std::size_t size, Value limit) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < size; i += kGroupBuckets) {
    Value found = 0;
    for (std::size_t j = i; j < std::min(size, i + kGroupBuckets); ++j) found = static_cast<Value>(found + (values[j] <= limit ? 1 : 0));
    count += found;
  }
  return count;
}

struct Buckets {
  // What is not above this is in the first bucket.
  std::uint32_t smallest;
  std::uint32_t shift;

  std::uint32_t of(std::uint32_t key) const { return (std::max(key, smallest) - smallest) >> shift; }
  // The lowest key of a bucket.
  std::uint32_t first_key(std::size_t bucket) const { return bucket == 0 ? 0 : smallest + (static_cast<std::uint32_t>(bucket) << shift); }
};

// Columns of a bucket, up to which all of it is compared with each. More are rare: many weights are equal, or very small.
constexpr std::size_t kMostCompared = 64;
// Larger than any key.
constexpr std::uint32_t kNoKey = 0x7fff'ffffU;

}  // namespace

std::size_t score_row(RowScanFunctions functions, const RowScores& scores, std::span<std::uint32_t> keys) {
  if (functions.score(scores, keys.data()) < kInfinityBits) return scores.columns;
  return static_cast<std::size_t>(
      std::find_if(scores.weights, scores.weights + scores.columns, [](float weight) { return !std::isfinite(weight); }) - scores.weights);
}

RowOrders::Scratch::Scratch(std::size_t columns)
    : buckets_(columns),
      places_(bucket_count(columns)),
      columns_(columns + kScanSlack),
      keys_(columns + kScanSlack),
      grouped_columns_(columns + kScanSlack),
      grouped_keys_(kMostCompared + columns + kMostCompared + kScanSlack),
      order_(columns) {}

std::uint64_t RowOrders::Scratch::bytes(std::size_t columns) {
  return bucket_count(columns) * sizeof(std::uint32_t) + columns * (sizeof(std::uint16_t) + 5 * sizeof(std::uint32_t)) +
         (4 * kScanSlack + 2 * kMostCompared) * sizeof(std::uint32_t);
}

RowOrders::RowOrders(std::size_t rows, std::size_t columns, RowScanFunctions functions)
    : columns_(columns),
      buckets_(bucket_count(columns)),
      bucket_shift_(static_cast<std::uint32_t>(std::bit_width(kKeyRange)) - bucket_bits(columns)),
      functions_(functions),
      smallest_keys_(rows) {
  if (is_narrow(columns)) {
    narrow_ = std::make_unique_for_overwrite<std::uint16_t[]>(rows * places_per_row(buckets_));
  } else {
    wide_ = std::make_unique_for_overwrite<std::uint32_t[]>(rows * places_per_row(buckets_));
  }
}

std::uint64_t RowOrders::scratch_bytes(std::size_t rows, std::size_t columns) {
  return rows * (sizeof(std::uint32_t) +
                 places_per_row(bucket_count(columns)) * (is_narrow(columns) ? sizeof(std::uint16_t) : sizeof(std::uint32_t)));
}

template <class Visit>
auto RowOrders::with_places(std::size_t row, Visit visit) const {
  const std::size_t first = row * places_per_row(buckets_);
  return narrow_ ? visit(&narrow_[first]) : visit(&wide_[first]);
}

void RowOrders::group(std::size_t row, std::span<const std::uint32_t> keys, Scratch& scratch) {
  std::uint16_t* const bucket_of = scratch.buckets_.data();
  smallest_keys_[row] = functions_.bucket(keys.data(), keys.size(), kKeyRange, bucket_shift_, bucket_of);

  std::uint32_t* const counts = scratch.places_.data();
  std::ranges::fill(scratch.places_, 0U);
  for (std::size_t j = 0; j < keys.size(); ++j) ++counts[bucket_of[j]];
  with_places(row, [&]<class Place>(Place* of_groups) {
    Place* const of_buckets = of_groups + groups(buckets_);
    std::uint32_t place = 0;
    for (std::size_t group = 0; group < groups(buckets_); ++group) {
      of_groups[group] = static_cast<Place>(place);
      for (std::size_t bucket = group * kGroupBuckets; bucket < (group + 1) * kGroupBuckets; ++bucket) {
        of_buckets[bucket] = static_cast<Place>(place);
        place += counts[bucket];
      }
    }
  });
}

std::size_t RowOrders::place_of(std::size_t row, std::size_t bucket) const {
  if (bucket == buckets_) return columns_;
  return with_places(row, [&](const auto* of_groups) { return std::size_t{of_groups[groups(buckets_) + bucket]}; });
}

RowOrders::Part RowOrders::part_of(std::size_t row, std::size_t first, std::size_t last) const {
  // The last bucket that begins at or before the place.
  const auto bucket_of = [&](std::size_t place) {
    return with_places(row, [&]<class Place>(const Place* of_groups) {
      const auto limit = static_cast<Place>(place);
      const std::size_t first_bucket = (count_up_to(of_groups, groups(buckets_), limit) - 1) * kGroupBuckets;
      return first_bucket + count_up_to(of_groups + groups(buckets_) + first_bucket, kGroupBuckets, limit) - 1;
    });
  };
  const Buckets buckets{.smallest = smallest_keys_[row], .shift = bucket_shift_};
  const std::size_t begin = bucket_of(first);
  const std::size_t end = bucket_of(last - 1) + 1;
  const std::uint32_t first_key = buckets.first_key(begin);
  return {.first_bucket = begin,
          .buckets = end - begin,
          .first = place_of(row, begin),
          .last = place_of(row, end),
          .first_key = first_key,
          .keys = buckets.first_key(end) - first_key};
}

std::span<const std::uint32_t> RowOrders::sort(std::size_t row, const RowScores& scores, const Part& part, Scratch& scratch) const {
  const std::size_t count = functions_.collect(scores, part.first_key, part.keys, scratch.columns_.data(), scratch.keys_.data());
  const Buckets buckets{.smallest = smallest_keys_[row], .shift = bucket_shift_};
  std::uint32_t* const places = scratch.places_.data();
  std::size_t most = 0;
  for (std::size_t bucket = 0; bucket < part.buckets; ++bucket) {
    const std::size_t place = place_of(row, part.first_bucket + bucket) - part.first;
    places[bucket] = static_cast<std::uint32_t>(place);
    if (bucket > 0) most = std::max(most, place - places[bucket - 1]);
  }
  most = std::max(most, count - places[part.buckets - 1]);

  std::uint32_t* const grouped_keys = scratch.grouped_keys_.data() + kMostCompared;
  std::uint32_t* const grouped_columns = scratch.grouped_columns_.data();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t place = places[buckets.of(scratch.keys_[i]) - part.first_bucket]++;
    grouped_keys[place] = scratch.keys_[i];
    grouped_columns[place] = scratch.columns_[i];
  }
  const std::span<std::uint32_t> order = std::span(scratch.order_).first(count);
  if (most <= kMostCompared) {
    std::fill_n(grouped_keys + count, most + kScanSlack, kNoKey);
    functions_.settle(grouped_keys, grouped_columns, count, most, order.data());
  } else {
    std::copy_n(scratch.columns_.data(), count, order.begin());
    std::ranges::sort(order, {}, [&](std::uint32_t column) { return std::pair(scores.key(column), column); });
  }
  return order;
}

void RowOrders::load_upwards(std::size_t row, const RowScores& scores, std::size_t first, std::span<std::uint32_t> columns,
                             Scratch& scratch) const {
  if (columns.empty()) return;
  const Part part = part_of(row, first, first + columns.size());
  std::ranges::copy(sort(row, scores, part, scratch).subspan(first - part.first, columns.size()), columns.begin());
}

void RowOrders::load_downwards(std::size_t row, const RowScores& scores, std::size_t first, std::span<std::uint32_t> columns,
                               Scratch& scratch) const {
  load_upwards(row, scores, first - columns.size(), columns, scratch);
  std::ranges::reverse(columns);
}

void RowOrders::load_before(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint32_t> columns,
                            Scratch& scratch) const {
  if (place == 0) return;
  const Part part = part_of(row, place - 1, place);
  const std::size_t collected = functions_.collect(scores, 0, part.first_key, scratch.columns_.data(), scratch.keys_.data());
  std::ranges::copy(std::span(scratch.columns_).first(collected), columns.begin());
  load_upwards(row, scores, part.first, columns.subspan(collected), scratch);
}

void RowOrders::load_from(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint32_t> columns,
                          Scratch& scratch) const {
  if (place == columns_) return;
  const Part part = part_of(row, place, place + 1);
  const std::size_t collected = functions_.collect(scores, part.end_key(), ~part.end_key(), scratch.columns_.data(), scratch.keys_.data());
  std::ranges::copy(std::span(scratch.columns_).first(collected), columns.begin());
  load_upwards(row, scores, place, columns.subspan(collected), scratch);
}

void RowOrders::mark_before(std::size_t row, const RowScores& scores, std::size_t place, std::span<std::uint8_t> bits,
                            Scratch& scratch) const {
  if (place == columns_) {
    functions_.mark_below(scores, UINT32_MAX, 0, bits.data());
    return;
  }
  const Part part = part_of(row, place, place + 1);
  const std::uint32_t column = sort(row, scores, part, scratch)[place - part.first];
  functions_.mark_below(scores, scores.key(column), column, bits.data());
}

}  // namespace secateur::allocation
