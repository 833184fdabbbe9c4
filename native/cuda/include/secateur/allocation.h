// Row allocation of one projection: scores, stable order, quality curves, search, mask. Formulas: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "secateur/call_context.h"

namespace secateur {

class ThreadPool;

enum class Score { kWanda, kMagnitude };
// How a projection's budget is split: by TRIM's search; the same share in every row; by the sparsities that are given for each row; what
// has the lowest scores of the whole matrix; from every row the lowest scores that together make the same share of the row's sum, as the
// variant of Wanda does; or so that the squared error of the output is the least.
enum class Allocation { kTrim, kUniform, kGiven, kMatrix, kScoreShare, kOptimal };

// How the search tells which sparsities are best. Formulas: docs/algorithms.md. Those named after a dimension (an output row) or a sample
// are the means of theirs; kPass finds all equally good.
enum class LayerQuality { kCosimFlat, kCosimDim, kCosimSample, kMse, kMseDim, kMae, kSnr, kPsnrFlat, kPsnrDim, kPsnrSample, kPass };

// How good a row is, which steers the search.
enum class RowQuality { kCosim, kMse, kPsnr };

// N:M: in every group of `group` neighbouring inputs the `dropped` lowest scores go, in a shorter last group as many as its share allows. A
// group of 0 means any weight may go.
struct Pattern {
  std::size_t dropped = 0;
  std::size_t group = 0;

  bool is_structured() const noexcept { return group != 0; }
};

struct AllocationOptions {
  Score score = Score::kWanda;
  Allocation allocation = Allocation::kTrim;
  // Only with the allocation kUniform; the target is then the pattern's own share.
  Pattern pattern = {};
  // Others than these only with the allocation kTrim.
  LayerQuality layer_quality = LayerQuality::kCosimFlat;
  RowQuality row_quality = RowQuality::kCosim;
  // Steps per learning rate.
  int iterations = 10;
  std::vector<double> learning_rates = {0.01, 0.02, 0.04, 0.08, 0.12, 0.16};
  // Tried when no other rate beats uniform.
  std::vector<double> negative_learning_rates = {-0.01, -0.02, -0.04};
};

// A projection and the statistics of its input. All matrices are row-major.
struct AllocationInput {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // Of the quality inputs.
  std::size_t samples = 0;
  // [rows, columns]
  std::span<const float> weights;
  // [columns]: sum of squares of the inputs over all tokens / calibration samples.
  std::span<const float> mean_squares;
  // [samples, columns]: inputs for which the dense and the pruned output are compared.
  std::span<const float> quality_inputs;
  double target_sparsity = 0;
  // [rows], with the allocation kGiven; else empty.
  std::span<const float> row_sparsities = {};
};

struct SearchStep {
  double learning_rate = 0;
  int step = 0;
  double quality = 0;
};

struct AllocatedRows {
  // Layer qualities, with the same sparsity in every row and with those that won: bigger is better. Infinite where the metric is kSnr and
  // the mean squared error is below 1e-10.
  double baseline_quality = 0;
  double best_quality = 0;
  // Empty when uniform won, or nothing was searched.
  std::optional<double> learning_rate;
  std::optional<int> best_step;
  // Unbiased variance of the row cosines, whatever metric steers the search.
  double variance_before = 0;
  double variance_after = 0;
  std::uint64_t dropped = 0;
  // [rows]
  std::vector<float> row_sparsities;
  // [rows]
  std::vector<std::int32_t> dropped_per_row;
  // [rows, ceil(columns / 8)]: least significant bit first, 1 = dropped.
  std::vector<std::uint8_t> mask;
  std::vector<SearchStep> steps;
};

// Bytes of scratch memory allocate_rows needs beside its input and result.
std::uint64_t allocation_scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, Allocation allocation,
                                       LayerQuality layer_quality, RowQuality row_quality, std::size_t threads);

// The result does not depend on the number of threads of the pool.
AllocatedRows allocate_rows(const AllocationInput& input, const AllocationOptions& options, ThreadPool& pool, CallContext& context);

}  // namespace secateur
