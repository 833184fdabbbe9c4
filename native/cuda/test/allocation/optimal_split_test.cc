#include "cpu/allocation/optimal_split.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <span>

#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

// [rows][counts from 0 on]
using Curves = std::vector<std::vector<double>>;

std::size_t highest_of(const Curves& curves) { return curves[0].size() - 1; }

double error_of(const Curves& curves, const std::vector<std::size_t>& counts) {
  double sum = 0;
  for (std::size_t row = 0; row < curves.size(); ++row) sum += curves[row][counts[row]];
  return sum;
}

// Curves of which only the counts from some on are known, for each row its own.
class KnownErrors final : public allocation::ErrorCurves {
 public:
  KnownErrors(const Curves& curves, std::size_t first_known) : first_known_(curves.size(), first_known), curves_(curves) {}

  std::size_t first_known(std::size_t row) const override { return first_known_[row]; }
  double at(std::size_t row, std::size_t count) const override { return count < first_known_[row] ? 0 : curves_[row][count]; }
  void load(std::size_t row, std::size_t first, std::span<double> errors) const override {
    for (std::size_t i = 0; i < errors.size(); ++i) errors[i] = curves_[row][first + i];
  }
  void know(std::size_t row, std::size_t first) { first_known_[row] = first; }

 private:
  std::vector<std::size_t> first_known_;
  const Curves& curves_;
};

// asked: how many errors had to be known, when nothing below first_known is told before it is asked for.
std::vector<std::size_t> split(const Curves& curves, std::size_t total, std::size_t first_known = 0, std::size_t threads = 1,
                               std::size_t* asked = nullptr) {
  ThreadPool pool(threads);
  CallContext context;
  KnownErrors errors(curves, std::min(first_known, highest_of(curves)));
  allocation::OptimalSplit optimal(curves.size(), highest_of(curves), errors, pool, context);
  std::vector<std::size_t> rows(curves.size());
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  while (!rows.empty()) {
    optimal.update(rows);
    rows.clear();
    for (const auto& [row, lowest] : optimal.split(total)) {
      REQUIRE(lowest < errors.first_known(row));
      errors.know(row, lowest);
      rows.push_back(row);
    }
  }
  if (asked != nullptr) {
    *asked = 0;
    for (std::size_t row = 0; row < curves.size(); ++row) *asked += highest_of(curves) + 1 - errors.first_known(row);
  }
  return optimal.counts();
}

// The least error of any split for every total, by dynamic programming.
std::vector<double> least_errors(const Curves& curves) {
  std::vector<double> least = curves[0];
  for (std::size_t row = 1; row < curves.size(); ++row) {
    std::vector<double> next(least.size() + highest_of(curves), std::numeric_limits<double>::infinity());
    for (std::size_t before = 0; before < least.size(); ++before) {
      for (std::size_t count = 0; count <= highest_of(curves); ++count) {
        next[before + count] = std::min(next[before + count], least[before] + curves[row][count]);
      }
    }
    least = std::move(next);
  }
  return least;
}

Curves convex_curves(std::size_t rows, std::size_t highest, std::mt19937& random) {
  std::uniform_real_distribution<double> uniform;
  Curves curves(rows);
  for (std::vector<double>& curve : curves) {
    std::vector<double> slopes(highest);
    for (double& slope : slopes) slope = uniform(random) * uniform(random);
    std::ranges::sort(slopes);
    curve.assign(1, 0.0);
    for (const double slope : slopes) curve.push_back(curve.back() + slope);
  }
  return curves;
}

// As dropped outputs give them: long stretches that rise, with falls between them.
Curves rough_curves(std::size_t rows, std::size_t highest, std::mt19937& random) {
  std::normal_distribution<double> normal;
  Curves curves(rows);
  for (std::vector<double>& curve : curves) {
    const double scale = std::exp(normal(random));
    double sum[3] = {};
    curve.assign(1, 0.0);
    for (std::size_t count = 1; count <= highest; ++count) {
      double error = 0;
      for (double& value : sum) {
        value += scale * normal(random) * static_cast<double>(count);
        error += value * value;
      }
      curve.push_back(error);
    }
  }
  return curves;
}

void check_split(const Curves& curves, const std::vector<std::size_t>& counts, std::size_t total) {
  REQUIRE(counts.size() == curves.size());
  CHECK(std::accumulate(counts.begin(), counts.end(), std::size_t{0}) == total);
  CHECK(std::ranges::max(counts) <= highest_of(curves));
}

}  // namespace

TEST_CASE("the split has the least error of all splits, at every total, whether curves are convex or not") {
  std::mt19937 random(3);
  for (const auto& make : {convex_curves, rough_curves}) {
    for (const auto& [rows, highest] : {std::pair<std::size_t, std::size_t>{1, 1}, {1, 9}, {2, 1}, {2, 12}, {3, 7}, {5, 20}, {9, 4}}) {
      for (int repeat = 0; repeat < 10; ++repeat) {
        const Curves curves = make(rows, highest, random);
        const std::vector<double> least = least_errors(curves);
        for (std::size_t total = 0; total <= rows * highest; ++total) {
          const std::vector<std::size_t> counts = split(curves, total);
          check_split(curves, counts, total);
          if (repeat % 5 == 0) CHECK(error_of(curves, split(curves, total, highest / 2)) == error_of(curves, counts));
          CHECK(error_of(curves, counts) <= least[total] * (1 + 1e-12));
        }
      }
    }
  }
}

TEST_CASE("a row of which only everything or nothing is cheap is not left halfway") {
  // Of the hulls alone, the first row would drop five: nobody else has slopes as low.
  const std::vector<double> all_or_nothing = {0, 50, 50, 50, 50, 50, 50, 50, 50, 50, 10};
  const std::vector<double> steady = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20};
  const Curves curves = {all_or_nothing, steady, steady};
  CHECK(split(curves, 5) == std::vector<std::size_t>{0, 5, 0});
  CHECK(split(curves, 13) == std::vector<std::size_t>{10, 3, 0});
}

TEST_CASE("what costs nothing goes first, and of what costs the same the first rows") {
  const Curves curves = {{0, 1, 2, 3, 4}, {0, 0, 0, 0, 0}, {0, 1, 3, 6, 10}};
  CHECK(split(curves, 4) == std::vector<std::size_t>{0, 4, 0});
  CHECK(split(curves, 7) == std::vector<std::size_t>{3, 4, 0});
  const Curves nothing = {{0, 0, 0}, {0, 0, 0}};
  check_split(nothing, split(nothing, 3), 3);
}

TEST_CASE("no weight at all may be dropped") { CHECK(split({{0}, {0}}, 0) == std::vector<std::size_t>{0, 0}); }

TEST_CASE("large splits are within a hair of what no split can beat, on any number of threads") {
  std::mt19937 random(4);
  const Curves curves = rough_curves(60, 150, random);
  const std::vector<double> least = least_errors(curves);
  for (const std::size_t total : {std::size_t{1}, std::size_t{60 * 15}, std::size_t{60 * 105}, std::size_t{60 * 149}}) {
    CAPTURE(total);
    const std::vector<std::size_t> counts = split(curves, total);
    check_split(curves, counts, total);
    CHECK(error_of(curves, counts) <= least[total] * (1 + 1e-6));
    CHECK(split(curves, total, 0, 3) == counts);
  }
}

TEST_CASE("no more errors have to be known than it takes, and the split is the same as if all were") {
  std::mt19937 random(5);
  const Curves curves = rough_curves(40, 200, random);
  const std::size_t all = 40 * 201;
  for (const std::size_t total : {std::size_t{40 * 20}, std::size_t{40 * 100}, std::size_t{40 * 160}}) {
    CAPTURE(total);
    std::size_t asked = 0;
    const std::vector<std::size_t> counts = split(curves, total, total / 40 * 3 / 4, 1, &asked);
    CHECK(error_of(curves, counts) == error_of(curves, split(curves, total)));
    if (total >= 40 * 100) CHECK(asked < all * 9 / 10);
  }
}

}  // namespace secateur::test
