// The arithmetic of a search step, of one row or of a sum's parts, for the CPU and for CUDA kernels: equal curves make equal decisions only
// if every bit is equal.
#pragma once

#include <cmath>
#include <cstddef>

#include "host_device.h"

namespace secateur::allocation {

inline constexpr float kHighestSparsity = 0.95F;

// floor(float32(columns) * sparsity), at least 0 and at most columns.
SECATEUR_HOST_DEVICE inline std::size_t dropped_count(std::size_t columns, float sparsity) {
  const float count = std::floor(static_cast<float>(columns) * sparsity);
  if (!(count > 0)) return 0;
  const auto whole = static_cast<std::size_t>(count);
  return whole < columns ? whole : columns;
}

// A sparsity that drops `count` of the columns: a little above their share where its product with the columns would be rounded below.
inline float sparsity_dropping(std::size_t columns, std::size_t count) {
  float sparsity = static_cast<float>(count) / static_cast<float>(columns);
  while (dropped_count(columns, sparsity) < count) sparsity = std::nextafter(sparsity, 2.0F);
  return sparsity;
}

// Of a row among rows whose qualities lie from `lowest` to `highest`; more than the others' mean for a row that keeps its quality.
SECATEUR_HOST_DEVICE inline double move_of(double quality, double lowest, double highest, double learning_rate) {
  return rounded_product((quality - lowest) / (highest - lowest + 1e-6), 2 * learning_rate);
}

SECATEUR_HOST_DEVICE inline float moved(float sparsity, double move, double mean_move) {
  return sparsity + static_cast<float>(move - mean_move);
}

SECATEUR_HOST_DEVICE inline float clipped(float sparsity) {
  if (sparsity > kHighestSparsity) return kHighestSparsity;
  return sparsity < 0 ? 0.0F : sparsity;
}

// Shifts the mean to the target.
SECATEUR_HOST_DEVICE inline float recentred(float sparsity, float mean, float target) { return sparsity - mean + target; }

// The mean of sparsities is a float32 sum in the order that the recorded decisions of the published code show (docs/algorithms.md): a count
// that hangs on its last bit then falls the same way.
inline constexpr std::size_t kSumLanes = 8;
inline constexpr std::size_t kSumStrands = 4 * kSumLanes;

// Sum of `terms` values, kSumStrands apart: in runs of 16, these in runs of 16 again, and so on.
SECATEUR_HOST_DEVICE inline float strand_sum(const float* values, std::size_t terms) {
  constexpr std::size_t kRun = 16;
  float of_runs = 0;
  float of_runs_of_runs = 0;
  float above = 0;
  const std::size_t runs = terms / kRun;
  for (std::size_t run = 0; run < runs; ++run) {
    float sum = 0;
    for (std::size_t term = 0; term < kRun; ++term) sum += values[(run * kRun + term) * kSumStrands];
    of_runs += sum;
    if ((run + 1) % kRun != 0) continue;
    of_runs_of_runs += of_runs;
    of_runs = 0;
    if ((run + 1) % (kRun * kRun) != 0) continue;
    above += of_runs_of_runs;
    of_runs_of_runs = 0;
  }
  float rest = 0;
  for (std::size_t term = runs * kRun; term < terms; ++term) rest += values[term * kSumStrands];
  return ((rest + of_runs) + of_runs_of_runs) + above;
}

// Sum of all values; strand_sums: [kSumStrands], of size / kSumStrands terms each, from values[0], values[1], … on.
SECATEUR_HOST_DEVICE inline float sum_of_strands(const float* strand_sums, const float* values, std::size_t size) {
  const std::size_t in_lanes = size / kSumLanes * kSumLanes;
  float sum = 0;
  for (std::size_t i = in_lanes; i < size; ++i) sum += values[i];
  for (std::size_t lane = 0; lane < kSumLanes; ++lane) {
    float lane_sum = strand_sums[lane];
    for (std::size_t rest = size / kSumStrands * kSumStrands + lane; rest < in_lanes; rest += kSumLanes) lane_sum += values[rest];
    for (std::size_t strand = lane + kSumLanes; strand < kSumStrands; strand += kSumLanes) lane_sum += strand_sums[strand];
    sum += lane_sum;
  }
  return sum;
}

}  // namespace secateur::allocation
