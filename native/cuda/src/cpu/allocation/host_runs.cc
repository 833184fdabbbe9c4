#include "host_runs.h"

#include <algorithm>

#include "search_arithmetic.h"

namespace secateur::allocation {

HostRuns::HostRuns(std::size_t rows, std::size_t columns, const LookUp& look_up, float target, CallContext& context)
    : columns_(columns), look_up_(look_up), target_(target), context_(context), moves_(rows), counts_(rows), products_(rows) {}

Candidate HostRuns::measure_uniform() {
  uniform_.sparsities.assign(counts_.size(), target_);
  look_up_and_measure(uniform_);
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
    look_up_and_measure(candidate);
    quality = candidate.quality;
    if (candidate.quality > best_.quality) best_ = candidate;
  }
}

void HostRuns::look_up_and_measure(Candidate& candidate) {
  std::ranges::transform(candidate.sparsities, counts_.begin(), [&](float sparsity) { return dropped_count(columns_, sparsity); });
  look_up_(counts_, products_);
  const auto rows = static_cast<double>(counts_.size());
  const PhaseScope phase(context_, "search", 20 * rows, rows * (sizeof(OutputProducts) + sizeof(double)));
  measure(candidate, products_);
}

}  // namespace secateur::allocation
