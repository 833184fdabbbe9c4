// Runs of the search on the CPU: one step after the other, each of which has the outputs compared that it needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "search.h"
#include "secateur/call_context.h"

namespace secateur::allocation {

// Compares the outputs when each row drops counts[row] weights.
using CompareOutputs = std::function<void(std::span<const std::size_t> counts, OutputComparison& outputs)>;

class HostRuns final : public SearchRuns {
 public:
  // Keeps the references.
  HostRuns(std::size_t rows, std::size_t columns, std::size_t samples, const CompareOutputs& compare, const Metrics& metrics, float target,
           CallContext& context);

  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t samples);

  Candidate measure_uniform() override;
  void run(double learning_rate, std::span<double> qualities) override;
  Candidate best() override { return best_; }

 private:
  void compare_and_measure(Candidate& candidate);

  std::size_t columns_;
  const CompareOutputs& compare_;
  Metrics metrics_;
  float target_;
  CallContext& context_;
  Candidate uniform_;
  Candidate best_;
  std::vector<double> moves_;
  std::vector<std::size_t> counts_;
  OutputComparison outputs_;
};

}  // namespace secateur::allocation
