// Sparsities of all rows, how good the outputs are with them, and a step from one to the next, on the CPU.
#pragma once

#include <span>
#include <vector>

#include "metrics.h"

namespace secateur::allocation {

struct Candidate {
  // [rows] each
  std::vector<float> sparsities;
  std::vector<double> row_qualities;
  // Unbiased variance of the rows' cosines, whatever the metric of their qualities is.
  double cosine_variance = 0;
  // Of the projection.
  double quality = 0;
};

// Sets the qualities.
void measure(Candidate& candidate, const OutputComparison& outputs, const Metrics& metrics);

// Sets the variance of a candidate that was measured with the same outputs.
void measure_variance(Candidate& candidate, const OutputComparison& outputs, const Metrics& metrics);

// Moves sparsity towards the rows whose quality is above the mean (away from them when the rate is negative). moves: [rows], scratch.
void move_sparsities(Candidate& candidate, double learning_rate, float target, std::span<double> moves);

// Clips to [0, 0.95], then shifts the mean to the target; values may end slightly outside again.
void clip_and_recentre(std::span<float> sparsities, float target);

// Unbiased; 0 for less than two values.
double variance(std::span<const double> values);

}  // namespace secateur::allocation
