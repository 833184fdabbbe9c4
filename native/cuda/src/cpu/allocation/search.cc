#include "search.h"

#include <optional>
#include <utility>
#include <vector>

namespace secateur::allocation {
namespace {

class Search {
 public:
  Search(SearchRuns& runs, int iterations) : runs_(runs), qualities_(static_cast<std::size_t>(iterations)) {
    const Candidate uniform = runs_.measure_uniform();
    baseline_quality_ = uniform.quality;
    variance_before_ = uniform.cosine_variance;
    steps_.push_back({.learning_rate = 0, .step = 0, .quality = baseline_quality_});
  }

  // Tries rates in order until one brings no gain over those before it in the list; the first has none before it, so it never ends the
  // list.
  void try_rates(std::span<const double> learning_rates) {
    double best_of_list = baseline_quality_;
    for (std::size_t rate = 0; rate < learning_rates.size(); ++rate) {
      const double best_of_run = run(learning_rates[rate], best_of_list);
      if (rate > 0 && best_of_run <= best_of_list) break;
      best_of_list = best_of_run;
    }
  }

  bool uniform_won() const { return !learning_rate_.has_value(); }

  AllocatedRows finish(float target) && {
    Candidate best = runs_.best();
    AllocatedRows result;
    result.baseline_quality = baseline_quality_;
    result.best_quality = best.quality;
    result.learning_rate = learning_rate_;
    result.best_step = best_step_;
    result.variance_before = variance_before_;
    result.variance_after = best.cosine_variance;
    result.row_sparsities = std::move(best.sparsities);
    clip_and_recentre(result.row_sparsities, target);
    result.steps = std::move(steps_);
    return result;
  }

 private:
  // Returns the best quality of the run when it is above `to_beat`, else `to_beat`. A second list is tried only when the first brought no
  // gain, so that every quality above `to_beat` is the best of all.
  double run(double learning_rate, double to_beat) {
    runs_.run(learning_rate, qualities_);
    int step = 0;
    for (const double quality : qualities_) {
      steps_.push_back({.learning_rate = learning_rate, .step = step, .quality = quality});
      if (quality > to_beat) {
        to_beat = quality;
        learning_rate_ = learning_rate;
        best_step_ = step;
      }
      ++step;
    }
    return to_beat;
  }

  SearchRuns& runs_;
  // Of the run at hand, by step.
  std::vector<double> qualities_;
  double baseline_quality_ = 0;
  double variance_before_ = 0;
  std::optional<double> learning_rate_;
  std::optional<int> best_step_;
  std::vector<SearchStep> steps_;
};

}  // namespace

AllocatedRows search_rows(SearchRuns& runs, float target, const AllocationOptions& options) {
  Search search(runs, options.iterations);
  search.try_rates(options.learning_rates);
  if (search.uniform_won()) search.try_rates(options.negative_learning_rates);
  return std::move(search).finish(target);
}

AllocatedRows keep_uniform(Candidate uniform) {
  AllocatedRows result;
  result.baseline_quality = result.best_quality = uniform.quality;
  result.variance_before = result.variance_after = uniform.cosine_variance;
  result.row_sparsities = std::move(uniform.sparsities);
  result.steps.push_back({.learning_rate = 0, .step = 0, .quality = uniform.quality});
  return result;
}

}  // namespace secateur::allocation
