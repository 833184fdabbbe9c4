// The split of what a projection drops over its rows that has the least squared error (docs/algorithms.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lower_hulls.h"
#include "secateur/call_context.h"

namespace secateur {

class ThreadPool;

namespace allocation {

class OptimalSplit {
 public:
  // A row that would end where its errors are not known, and the lowest count of which they are to be known.
  struct Unknown {
    std::size_t row;
    std::size_t lowest;
  };

  // Of rows that drop at most `highest` weights each. Keeps the references.
  OptimalSplit(std::size_t rows, std::size_t highest, const ErrorCurves& errors, ThreadPool& pool, CallContext& context);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t highest, std::size_t threads);

  // Takes in rows of which more is known than before; all of them before the first split.
  void update(std::span<const std::size_t> rows);
  // Splits `total`, the same every time and at most rows * highest. Where no row ends unknown, no split is better whatever the unknown
  // errors are: they were taken to be 0.
  std::vector<Unknown> split(std::size_t total);
  // Weights that each row drops. [rows]
  const std::vector<std::size_t>& counts() const { return counts_; }

 private:
  // What the rows drop when no weight costs more than some multiplier: not enough, and enough; `multiplier` is that of enough.
  struct Bracket {
    double multiplier = 0;
    std::vector<std::size_t> below;
    std::vector<std::size_t> enough;
  };

  // Whether no weight that costs more than the multiplier need go; the bracket then ends there, else it begins there.
  bool try_multiplier(double multiplier, std::size_t total, Bracket& bracket);
  Bracket find_bracket(std::size_t total);
  std::vector<Unknown> find_unknown() const;

  const ErrorCurves& errors_;
  ThreadPool& pool_;
  CallContext& context_;
  LowerHulls hulls_;
  // One per thread that ever built a hull.
  std::vector<std::unique_ptr<LowerHulls::Scratch>> scratch_;
  // Of the latest split: what the last weights cost.
  double multiplier_;
  std::vector<std::size_t> counts_;
  // [rows], of try_multiplier.
  std::vector<std::size_t> tried_;
};

}  // namespace allocation
}  // namespace secateur
