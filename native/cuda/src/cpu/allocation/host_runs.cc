#include "host_runs.h"

#include <algorithm>

#include "search_arithmetic.h"

namespace secateur::allocation {

HostRuns::HostRuns(std::size_t rows, std::size_t columns, std::size_t samples, const CompareOutputs& compare, const Metrics& metrics,
                   float target, CallContext& context)
    : columns_(columns),
      compare_(compare),
      metrics_(metrics),
      target_(target),
      context_(context),
      moves_(rows),
      counts_(rows),
      outputs_(rows, samples) {}

std::uint64_t HostRuns::scratch_bytes(std::size_t rows, std::size_t samples) {
  // Of the uniform, the current and the best candidate; cosines.
  constexpr std::uint64_t kCandidates = 3 * (sizeof(float) + sizeof(double)) + sizeof(double);
  return rows * (kCandidates + sizeof(double) + sizeof(std::size_t)) + OutputComparison::bytes(rows, samples);
}

Candidate HostRuns::measure_uniform() {
  uniform_.sparsities.assign(counts_.size(), target_);
  compare_and_measure(uniform_);
  measure_variance(uniform_, outputs_, metrics_);
  best_ = uniform_;
  return uniform_;
}

void HostRuns::run(double learning_rate, std::span<double> qualities) {
  Candidate candidate = uniform_;
  for (double& quality : qualities) {
    context_.check();
    {
      const auto rows = static_cast<double>(counts_.size());
      const PhaseScope phase(context_, "search", 10 * rows, rows * (2 * sizeof(float) + 2 * sizeof(double)));
      move_sparsities(candidate, learning_rate, target_, moves_);
    }
    compare_and_measure(candidate);
    quality = candidate.quality;
    if (candidate.quality > best_.quality) {
      measure_variance(candidate, outputs_, metrics_);
      best_ = candidate;
    }
  }
}

void HostRuns::compare_and_measure(Candidate& candidate) {
  std::ranges::transform(candidate.sparsities, counts_.begin(), [&](float sparsity) { return dropped_count(columns_, sparsity); });
  compare_(counts_, outputs_);
  const auto rows = static_cast<double>(counts_.size());
  const PhaseScope phase(context_, "search", 20 * rows, rows * (sizeof(OutputSums) + sizeof(double)));
  measure(candidate, outputs_, metrics_);
}

}  // namespace secateur::allocation
