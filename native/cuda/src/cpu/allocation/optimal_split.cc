#include "optimal_split.h"

#include <algorithm>
#include <bit>
#include <compare>
#include <limits>
#include <numeric>
#include <utility>

#include "remainder.h"
#include "secateur/thread_pool.h"

namespace secateur::allocation {
namespace {

// Rows of one work item that builds hulls, and of one that looks up a multiplier.
constexpr std::size_t kHullRows = 32;
constexpr std::size_t kTriedRows = 256;

// Weights per row between the ends of a bracket, below which the parts of the hulls that lie there are sorted.
constexpr std::size_t kSortedWeights = 64;

// A straight part of a hull.
struct Part {
  double slope = 0;
  std::size_t row = 0;
  std::size_t first = 0;
  std::size_t last = 0;

  friend auto operator<=>(const Part&, const Part&) = default;
};

std::size_t sum(const std::vector<std::size_t>& counts) { return std::accumulate(counts.begin(), counts.end(), std::size_t{0}); }

// By slope, then by row.
std::vector<Part> parts_between(const LowerHulls& hulls, const std::vector<std::size_t>& first, const std::vector<std::size_t>& last) {
  std::vector<Part> parts;
  for (std::size_t row = 0; row < hulls.rows(); ++row) {
    for (std::size_t vertex = first[row]; vertex < last[row];) {
      const std::size_t next = hulls.next(row, vertex);
      parts.push_back({.slope = hulls.slope(row, vertex, next), .row = row, .first = vertex, .last = next});
      vertex = next;
    }
  }
  std::ranges::sort(parts);
  return parts;
}

}  // namespace

OptimalSplit::OptimalSplit(std::size_t rows, std::size_t highest, const ErrorCurves& errors, ThreadPool& pool, CallContext& context)
    : errors_(errors),
      pool_(pool),
      context_(context),
      hulls_(rows, highest, errors),
      scratch_(pool.size()),
      multiplier_(std::numeric_limits<double>::infinity()),
      counts_(rows),
      tried_(rows) {}

std::uint64_t OptimalSplit::scratch_bytes(std::size_t rows, std::size_t highest, std::size_t threads) {
  return LowerHulls::scratch_bytes(rows, highest) + threads * LowerHulls::Scratch::bytes(highest) + 4 * rows * sizeof(std::size_t) +
         std::max<std::uint64_t>(rows * std::min(kSortedWeights, highest + 1) * sizeof(Part), remainder_scratch_bytes(highest));
}

void OptimalSplit::update(std::span<const std::size_t> rows) {
  pool_.parallel_for((rows.size() + kHullRows - 1) / kHullRows, [&](std::size_t tile, std::size_t worker) {
    context_.check();
    const std::span<const std::size_t> of_tile = rows.subspan(tile * kHullRows, std::min(kHullRows, rows.size() - tile * kHullRows));
    const auto points = static_cast<double>(of_tile.size() * (hulls_.highest() + 1));
    const PhaseScope phase(context_, "search", 4 * points, sizeof(double) * points);
    if (!scratch_[worker]) scratch_[worker] = std::make_unique<LowerHulls::Scratch>(hulls_.highest());
    for (const std::size_t row : of_tile) hulls_.build(row, *scratch_[worker]);
  });
}

std::vector<OptimalSplit::Unknown> OptimalSplit::split(std::size_t total) {
  Bracket bracket = find_bracket(total);
  const auto rows = static_cast<double>(hulls_.rows());
  const PhaseScope phase(context_, "search", 100 * rows, 100 * rows * sizeof(double));
  counts_ = std::move(bracket.below);
  multiplier_ = bracket.multiplier;
  std::size_t left = total - sum(counts_);
  // Of the part that is too long for what is left.
  std::size_t length = 0;
  for (const Part& part : parts_between(hulls_, counts_, bracket.enough)) {
    if (left == 0) break;
    multiplier_ = part.slope;
    length = part.last - part.first;
    if (length > left) break;
    counts_[part.row] = part.last;
    left -= length;
  }
  std::vector<Unknown> unknown = find_unknown();
  if (left == 0 || !unknown.empty()) return unknown;
  drop_remainder(errors_, hulls_.highest(), multiplier_, length, left, counts_);
  return find_unknown();
}

bool OptimalSplit::try_multiplier(double multiplier, std::size_t total, Bracket& bracket) {
  pool_.parallel_for((hulls_.rows() + kTriedRows - 1) / kTriedRows, [&](std::size_t tile, std::size_t) {
    context_.check();
    const std::size_t end = std::min(hulls_.rows(), (tile + 1) * kTriedRows);
    const auto rows = static_cast<double>(end - tile * kTriedRows);
    const PhaseScope phase(context_, "search", 20 * rows, 20 * rows * sizeof(double));
    for (std::size_t row = tile * kTriedRows; row < end; ++row) {
      tried_[row] = hulls_.vertex_at(row, multiplier, bracket.below[row], bracket.enough[row]);
    }
  });
  const bool enough = sum(tried_) >= total;
  if (enough) bracket.multiplier = multiplier;
  std::swap(enough ? bracket.enough : bracket.below, tried_);
  return enough;
}

OptimalSplit::Bracket OptimalSplit::find_bracket(std::size_t total) {
  const std::size_t rows = hulls_.rows();
  Bracket bracket{.multiplier = 0, .below = std::vector<std::size_t>(rows), .enough = std::vector<std::size_t>(rows, hulls_.highest())};
  for (std::size_t row = 0; row < rows; ++row) bracket.multiplier = std::max(bracket.multiplier, hulls_.last_slope(row));
  // Slopes are not negative, so their bits are in the order of their values. What was enough before more was known is enough still.
  auto lowest = std::uint64_t{0};
  const auto try_below = [&](double multiplier) {
    if (try_multiplier(multiplier, total, bracket)) return true;
    lowest = std::bit_cast<std::uint64_t>(multiplier) + 1;
    return false;
  };
  const auto is_wide = [&] {
    return lowest < std::bit_cast<std::uint64_t>(bracket.multiplier) && sum(bracket.enough) - sum(bracket.below) > kSortedWeights * rows;
  };
  for (double guess = std::min(bracket.multiplier, multiplier_); is_wide() && try_below(guess); guess /= 2) {
  }
  while (is_wide()) try_below(std::bit_cast<double>(lowest + (std::bit_cast<std::uint64_t>(bracket.multiplier) - lowest) / 2));
  return bracket;
}

// With `count` weights dropped a row has, beside the multiplier's price of its weights, an error of at least -multiplier · count. A known
// count that has less than that beats all lower ones. The multiplier falls when more is known; so where rows have to be known better at
// all, those are too that would have to be soon.
std::vector<OptimalSplit::Unknown> OptimalSplit::find_unknown() const {
  constexpr double kFall = 0.9;
  std::vector<Unknown> unknown;
  bool is_known = true;
  for (std::size_t row = 0; row < counts_.size(); ++row) {
    const std::size_t known = errors_.first_known(row);
    if (known <= 1 || counts_[row] == 0) continue;
    const bool ends_known = counts_[row] >= known;
    is_known = is_known && ends_known;
    const std::size_t count = ends_known ? counts_[row] : hulls_.next(row, known - 1);
    const double beaten = static_cast<double>(count) - errors_.at(row, count) / (kFall * multiplier_);
    const auto lowest = std::min(beaten > 0 ? static_cast<std::size_t>(beaten) : 0, counts_[row]);
    if (lowest < known) unknown.push_back({.row = row, .lowest = lowest});
  }
  if (is_known) unknown.clear();
  return unknown;
}

}  // namespace secateur::allocation
