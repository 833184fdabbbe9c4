// The outputs of all rows, dense and pruned, for metrics that quality curves do not hold. They are kept and moved along with the counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "curves.h"
#include "metrics.h"

namespace secateur::allocation {

// Sums are exact, so that an output is the same bits however the search came to its count, and candidates with equal counts are equally
// good: every product of a row is rounded to a multiple of the row's unit, which is so small that it matters no more than the rounding of
// float64 sums, and so large that no sum of them needs to be rounded.
class PrunedOutputs {
 public:
  // Keeps the reference to the inputs, which are swept in float64.
  PrunedOutputs(std::size_t rows, const SweepInputs& inputs);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples);

  // Adds to a batch the sum of all weights of a row. weights: [columns].
  void add_dense(std::size_t row, std::span<const float> weights, SweepBatch& batch);
  // After that: whether float32, as the model computes in, can hold the dense output.
  bool fits_float32(std::size_t row) const;

  std::size_t count(std::size_t row) const { return counts_[row]; }
  // From where a row is moved to `count` in the fewest steps: from where it is, from nothing or from everything dropped. It then is there.
  std::size_t begin_move(std::size_t row, std::size_t count);
  // Adds to a batch the move from there. batch.next_columns holds the columns, in any order, of the places between the two counts.
  void add_move(std::size_t row, std::size_t count, std::span<const float> weights, SweepBatch& batch);

  // Set the comparisons of rows and of samples [begin, end).
  void compare_rows(std::size_t begin, std::size_t end, OutputComparison& outputs) const;
  void compare_samples(std::size_t begin, std::size_t end, OutputComparison& outputs) const;

 private:
  double* dense(std::size_t row) { return dense_.data() + row * stride_; }
  const double* dense(std::size_t row) const { return dense_.data() + row * stride_; }
  double* dropped(std::size_t row) { return dropped_.data() + row * stride_; }
  const double* dropped(std::size_t row) const { return dropped_.data() + row * stride_; }

  const SweepInputs& inputs_;
  std::size_t stride_;
  // [columns]
  std::vector<double> input_norms_;
  // [rows] each: as SweepTask has it, and how many weights are dropped.
  std::vector<double> rounders_;
  std::vector<std::size_t> counts_;
  // [rows, stride_] each: outputs of all weights and of those that are dropped.
  AlignedArray<double> dense_;
  AlignedArray<double> dropped_;
};

}  // namespace secateur::allocation
