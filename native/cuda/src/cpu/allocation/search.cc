#include "search.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace secateur::allocation {
namespace {

constexpr float kHighestSparsity = 0.95F;

constexpr std::size_t kLanes = 8;
constexpr std::size_t kStrands = 4 * kLanes;

// Sum of every kStrands-th value from `first` on: in runs of 16, these in runs of 16 again, and so on.
float strand_sum(std::span<const float> values, std::size_t first, std::size_t terms) {
  constexpr std::size_t kRun = 16;
  std::array<float, 4> open{};
  for (std::size_t term = 0; term < terms; ++term) {
    open[0] += values[first + term * kStrands];
    std::size_t closed = term + 1;
    for (std::size_t level = 0; level + 1 < open.size() && closed % kRun == 0; ++level, closed /= kRun) {
      open[level + 1] += open[level];
      open[level] = 0;
    }
  }
  return ((open[0] + open[1]) + open[2]) + open[3];
}

// Float32 sum in the order that the recorded decisions of the published code show (docs/algorithms.md): a count that hangs on the last
// bit of the mean then falls the same way.
float ordered_sum(std::span<const float> values) {
  const std::size_t terms = values.size() / kStrands;
  const std::size_t in_lanes = values.size() / kLanes * kLanes;
  float sum = 0;
  for (const float value : values.subspan(in_lanes)) sum += value;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    float lane_sum = strand_sum(values, lane, terms);
    for (std::size_t rest = terms * kStrands + lane; rest < in_lanes; rest += kLanes) lane_sum += values[rest];
    for (std::size_t strand = lane + kLanes; strand < kStrands; strand += kLanes) lane_sum += strand_sum(values, strand, terms);
    sum += lane_sum;
  }
  return sum;
}

// Clips to [0, 0.95], then shifts the mean to the target; values may end slightly outside again.
void clip_and_recentre(std::span<float> sparsities, float target) {
  for (float& sparsity : sparsities) sparsity = std::max(std::min(sparsity, kHighestSparsity), 0.0F);
  const float mean = ordered_sum(sparsities) / static_cast<float>(sparsities.size());
  for (float& sparsity : sparsities) sparsity = sparsity - mean + target;
}

struct Candidate {
  std::vector<float> sparsities;
  std::vector<double> row_qualities;
  double quality = 0;
};

// Moves sparsity towards the rows whose quality is above the mean (away from them when the rate is negative).
void move_sparsities(Candidate& candidate, double learning_rate, float target, std::vector<double>& moves) {
  const auto [lowest, highest] = std::ranges::minmax(candidate.row_qualities);
  double mean = 0;
  for (std::size_t row = 0; row < moves.size(); ++row) {
    moves[row] = (candidate.row_qualities[row] - lowest) / (highest - lowest + 1e-6) * (2 * learning_rate);
    mean += moves[row];
  }
  mean /= static_cast<double>(moves.size());
  for (std::size_t row = 0; row < moves.size(); ++row) candidate.sparsities[row] += static_cast<float>(moves[row] - mean);
  clip_and_recentre(candidate.sparsities, target);
}

class Search {
 public:
  Search(std::size_t rows, std::size_t columns, const LookUp& look_up, float target, int iterations, CallContext& context)
      : rows_(rows),
        columns_(columns),
        look_up_(look_up),
        target_(target),
        iterations_(iterations),
        context_(context),
        moves_(rows),
        counts_(rows),
        products_(rows) {
    uniform_.sparsities.assign(rows, target);
    uniform_.row_qualities.resize(rows);
    measure(uniform_, 0, 0);
    best_ = uniform_;
  }

  // Tries rates in order until one brings no gain over those before it in the list; the first has none before it, so it never ends the
  // list.
  void try_rates(std::span<const double> learning_rates) {
    double best_of_list = uniform_.quality;
    for (std::size_t rate = 0; rate < learning_rates.size(); ++rate) {
      const double best_of_run = run(learning_rates[rate], best_of_list);
      if (rate > 0 && best_of_run <= best_of_list) break;
      best_of_list = best_of_run;
    }
  }

  bool uniform_won() const { return !learning_rate_.has_value(); }

  AllocatedRows finish() && {
    AllocatedRows result;
    result.baseline_quality = uniform_.quality;
    result.best_quality = best_.quality;
    result.learning_rate = learning_rate_;
    result.best_step = best_step_;
    result.variance_before = variance(uniform_.row_qualities);
    result.variance_after = variance(best_.row_qualities);
    result.row_sparsities = std::move(best_.sparsities);
    clip_and_recentre(result.row_sparsities, target_);
    result.steps = std::move(steps_);
    return result;
  }

 private:
  // Returns the best quality of the run when it is above `to_beat`, else `to_beat`. Every quality above `to_beat` is also above best_.
  double run(double learning_rate, double to_beat) {
    Candidate candidate = uniform_;
    for (int step = 0; step < iterations_; ++step) {
      context_.check();
      {
        const auto rows = static_cast<double>(rows_);
        const PhaseScope phase(context_, "search", 10 * rows, rows * (2 * sizeof(float) + 2 * sizeof(double)));
        move_sparsities(candidate, learning_rate, target_, moves_);
      }
      measure(candidate, learning_rate, step);
      if (candidate.quality > to_beat) {
        to_beat = candidate.quality;
        best_ = candidate;
        learning_rate_ = learning_rate;
        best_step_ = step;
      }
    }
    return to_beat;
  }

  void measure(Candidate& candidate, double learning_rate, int step) {
    std::ranges::transform(candidate.sparsities, counts_.begin(), [&](float sparsity) { return dropped_count(columns_, sparsity); });
    look_up_(counts_, products_);
    const auto rows = static_cast<double>(rows_);
    const PhaseScope phase(context_, "search", 20 * rows, rows * (sizeof(OutputProducts) + sizeof(double)));
    OutputProducts layer;
    for (std::size_t row = 0; row < rows_; ++row) {
      candidate.row_qualities[row] = cosine(products_[row]);
      layer.add(products_[row]);
    }
    candidate.quality = cosine(layer);
    steps_.push_back({.learning_rate = learning_rate, .step = step, .quality = candidate.quality});
  }

  std::size_t rows_;
  std::size_t columns_;
  const LookUp& look_up_;
  float target_;
  int iterations_;
  CallContext& context_;
  Candidate uniform_;
  Candidate best_;
  std::optional<double> learning_rate_;
  std::optional<int> best_step_;
  std::vector<SearchStep> steps_;
  std::vector<double> moves_;
  std::vector<std::size_t> counts_;
  std::vector<OutputProducts> products_;
};

}  // namespace

std::size_t dropped_count(std::size_t columns, float sparsity) {
  const float count = std::floor(static_cast<float>(columns) * sparsity);
  return count > 0 ? std::min(columns, static_cast<std::size_t>(count)) : 0;
}

double variance(std::span<const double> values) {
  if (values.size() < 2) return 0;
  double mean = 0;
  for (const double value : values) mean += value;
  mean /= static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(values.size() - 1);
}

AllocatedRows search_rows(std::size_t rows, std::size_t columns, const LookUp& look_up, float target, const AllocationOptions& options,
                          CallContext& context) {
  Search search(rows, columns, look_up, target, options.iterations, context);
  search.try_rates(options.learning_rates);
  if (search.uniform_won()) search.try_rates(options.negative_learning_rates);
  return std::move(search).finish();
}

}  // namespace secateur::allocation
