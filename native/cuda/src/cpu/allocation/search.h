// TRIM's search for the sparsity of each row (arXiv 2505.16743): which learning rates are tried and which step wins. Every backend decides
// by this; how the steps are computed is its own.
#pragma once

#include <span>

#include "candidate.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

// Computes runs: steps at one learning rate that begin with every row at the target.
class SearchRuns {
 public:
  SearchRuns() = default;
  virtual ~SearchRuns() = default;
  SearchRuns(const SearchRuns&) = delete;
  SearchRuns& operator=(const SearchRuns&) = delete;

  // Of every row at the target. Called once, before anything else.
  virtual Candidate measure_uniform() = 0;
  // Sets the quality after each step of a run.
  virtual void run(double learning_rate, std::span<double> qualities) = 0;
  // The candidate of highest quality that was measured so far; of equal ones the first.
  virtual Candidate best() = 0;
};

// What is dropped, and the mask, are left to the caller.
AllocatedRows search_rows(SearchRuns& runs, float target, const AllocationOptions& options);

// The result without a search; as above.
AllocatedRows keep_uniform(Candidate uniform);

}  // namespace secateur::allocation
