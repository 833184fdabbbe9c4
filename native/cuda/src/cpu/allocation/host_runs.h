// Runs of the search on the CPU: one step after the other, each of which looks up the points of quality curves that it needs.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "search.h"
#include "secateur/call_context.h"

namespace secateur::allocation {

// Sets products[row] to those of row `row` with counts[row] weights dropped.
using LookUp = std::function<void(std::span<const std::size_t> counts, std::span<OutputProducts> products)>;

class HostRuns final : public SearchRuns {
 public:
  // Keeps the references.
  HostRuns(std::size_t rows, std::size_t columns, const LookUp& look_up, float target, CallContext& context);

  Candidate measure_uniform() override;
  void run(double learning_rate, std::span<double> qualities) override;
  Candidate best() override { return best_; }

 private:
  void look_up_and_measure(Candidate& candidate);

  std::size_t columns_;
  const LookUp& look_up_;
  float target_;
  CallContext& context_;
  Candidate uniform_;
  Candidate best_;
  std::vector<double> moves_;
  std::vector<std::size_t> counts_;
  std::vector<OutputProducts> products_;
};

}  // namespace secateur::allocation
